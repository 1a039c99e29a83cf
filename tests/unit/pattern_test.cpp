// SPDX-License-Identifier: Apache-2.0
// Splitting patterns as tables: the pieces that Hugging Face's tokenizers 0.23.3 gives (golden/pre_tokenizers.json), and what is refused.
#include <chrono>

#include "converter/tokenizer/json_fields.h"
#include "converter_fixture.h"
#include "tests/sanitized.h"
#include "tests/unit/tokenizer_fixture.h"
#include "text/pattern.h"

namespace gptq::test {
namespace {

using Pieces = std::vector<std::string>;

// A section with one step in it, and what it makes of a text.
class Step {
 public:
  explicit Step(const std::string& source) : blob_(section(source)), file_(std::as_bytes(std::span(blob_)), 64, std::pmr::new_delete_resource()) {}
  Pieces split(std::string_view text) const {
    Pieces out;
    const text::Pattern pattern(file_.facts(), *file_.facts().patterns()->Get(0));
    pattern.split(text, [&](std::string_view piece) { out.emplace_back(piece); });
    return out;
  }

 private:
  static std::vector<uint8_t> section(const std::string& source) {
    auto description = small_description(text::fb::Alphabet::bytes);
    description.splits = {text::fb::Split::pattern};
    description.patterns = {{source}};
    return convert::compile_tokenizer(description);
  }
  std::vector<uint8_t> blob_;
  text::TokenizerFile file_;
};

std::string regex_step(const std::string& regex) {
  return R"({"type": "Split", "pattern": {"Regex": ")" + regex + R"("}, "behavior": "Isolated", "invert": false})";
}

TEST(Pattern, GivesThePiecesOfHuggingFace) {
  const char* folder = std::getenv("GPTQ_GOLDEN");
  ASSERT_TRUE(folder);
  const convert::JsonDocument file("", "{\"all\": " + convert::read_text(std::string(folder) + "/pre_tokenizers.json", 1 << 20) + "}");
  size_t n = 0;
  const auto all = file.root().array("all");
  for (const convert::Json test : *all) {
    const Step step(simdjson::minify(*convert::field(test, "step")));
    Pieces expected;
    for (const convert::Json piece : convert::as_array(*convert::field(test, "pieces"), "pieces")) expected.emplace_back(convert::as_string(piece, ""));
    EXPECT_EQ(step.split(convert::string_field(test, "text")), expected) << convert::string_field(test, "name");
    ++n;
  }
  EXPECT_EQ(n, 288u);
}

TEST(Pattern, WhatATableCannotSayIsRefusedByName) {
  for (const auto& [regex, what] : std::vector<std::pair<std::string, std::string>>{
           {"(?=ab)", "a condition on more than one character"},
           {"(?<!ab)c", "a condition on more than one character"},
           {"(a)\\\\1", "such an escape"},
           {"(?:ab)++", "a possessive repetition of more than one character"},
           {"(?>ab|a)", "an atomic group of more than one character"},
           {"\\\\p{Klingon}", "Klingon"},
           {"(a", "an unclosed ("},
           {"a)", "an unmatched )"},
           {"[a", "an early end"},
           {"[z-a]", "such a range"},
           {"a{1001}", "a repetition of more than 1000 times"},
           {"(?:(?:(?:a{100}){100}){100})", "too large"},
           {"(?:a|b)*a(?:a|b){17}", "too large"},
           {std::string(60, '(') + std::string(60, ')'), "nested deeper"}}) {
    const std::string step = regex_step(regex);  // clang 14 lets no lambda have a structured binding
    EXPECT_REFUSED(Step(step), what);
  }
  EXPECT_REFUSED(Step(R"({"type": "UnicodeScripts"})"), "UnicodeScripts");
  EXPECT_REFUSED(Step(R"({"type": "Punctuation", "behavior": "Sideways"})"), "Sideways");
}

// A match is given up far behind the last place where it could end, so that no text takes long.
TEST(Pattern, NoTextTakesLong) {
#ifdef GPTQ_SANITIZED
  constexpr size_t bytes = 20'000;
#else
  constexpr size_t bytes = 200'000;
#endif
  const Step step(regex_step("a+b|."));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(step.split(std::string(bytes, 'a')).size(), bytes);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  EXPECT_EQ(step.split(std::string(4000, 'a') + "b").size(), 1u);
}

}  // namespace
}  // namespace gptq::test
