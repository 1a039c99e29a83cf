// SPDX-License-Identifier: Apache-2.0
// Banned phrases: found where a search of the whole text finds them, however the text is cut.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "base/failure.h"
#include "tests/seed.h"
#include "tests/unit/tokenizer_fixture.h"
#include "text/phrases.h"
#include "text/utf8.h"

namespace gptq::test {
namespace {

using text::Phrases;

// Letters of one, two, three and four bytes, large and small; some whose small letter is longer or shorter, which stay as they are.
const std::vector<std::string> letters = {"a", "B", "b", "A", " ", "\xc3\x89", "\xc3\xa9", "\xce\xa3", "\xcf\x83", "\xcf\x82", "\xd0\xaf", "\xd1\x8f",
                                          "\xe1\xba\x9e", "\xe2\x84\xaa", "\xc4\xb0", "\xf0\x90\x90\x80", "\xf0\x90\x90\xa8", "\xe6\xbc\xa2"};
const std::map<std::string, std::string> small = {{"A", "a"}, {"B", "b"}, {"\xc3\x89", "\xc3\xa9"}, {"\xce\xa3", "\xcf\x83"}, {"\xcf\x82", "\xcf\x83"},
                                                  {"\xd0\xaf", "\xd1\x8f"}, {"\xf0\x90\x90\x80", "\xf0\x90\x90\xa8"}};
std::string folded(const std::vector<std::string>& text) {
  std::string out;
  for (const std::string& letter : text) out += small.count(letter) ? small.at(letter) : letter;
  return out;
}
std::vector<std::string> any_text(std::mt19937& random, size_t n) {
  std::vector<std::string> text;
  while (text.size() < n) text.push_back(letters[random() % letters.size()]);
  return text;
}
std::string joined(const std::vector<std::string>& text) {
  std::string out;
  for (const std::string& letter : text) out += letter;
  return out;
}

const text::Tokenizer& some_tokenizer() {
  static const TestTokenizer tokenizer(small_description(text::fb::Alphabet::characters));
  return tokenizer.get();
}

TEST(Phrases, FoundAsInTheWholeText) {
  std::mt19937 random(seed(11));
  int found = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> folds;
    std::string source = "[";
    for (unsigned n = 1 + random() % 5; n; --n) {
      const auto phrase = any_text(random, 1 + random() % 4);
      folds.push_back(folded(phrase));
      source += (source.size() > 1 ? ", \"" : "\"") + joined(phrase) + "\"";
    }
    const Phrases phrases(source + "]", some_tokenizer(), 3, std::pmr::new_delete_resource());
    const auto text = any_text(random, 12);
    const std::string bytes = joined(text), fold = folded(text);
    ASSERT_EQ(bytes.size(), fold.size());
    // The first end, and the shortest phrase there.
    size_t first_end = std::string::npos, size = 0;
    for (size_t end = 1; end <= fold.size() && first_end == std::string::npos; ++end)
      for (const std::string& f : folds)
        if (fold.substr(0, end).ends_with(f) && (first_end == std::string::npos || f.size() < size)) first_end = end, size = f.size();
    Phrases::Place place;
    Phrases::Hit hit;
    size_t at = 0;
    for (size_t n; at < bytes.size() && !hit.size; at += hit.size ? 0 : n) {
      n = std::min<size_t>(1 + random() % 5, bytes.size() - at);
      hit = phrases.read(place, bytes.substr(at, n));
      if (hit.size) continue;
      // What is open is the longest beginning of a phrase that ends here, and what there is of a character.
      const std::string so_far = fold.substr(0, at + n), whole = so_far.substr(0, text::valid_prefix(bytes.substr(0, at + n)));
      size_t open = 0;
      for (const std::string& f : folds)
        for (size_t k = 1; k < f.size(); ++k)
          if (whole.ends_with(f.substr(0, k))) open = std::max(open, k);
      ASSERT_EQ(place.open(), open + so_far.size() - whole.size()) << source << ": " << so_far;
    }
    ASSERT_EQ(hit.size, first_end == std::string::npos ? 0 : size) << source << ": " << bytes;
    if (hit.size) {
      ASSERT_EQ(at + hit.end, first_end) << source << ": " << bytes;
    }
    found += hit.size > 0;
  }
  EXPECT_GT(found, 100);
  EXPECT_LT(found, 399);
}

TEST(Phrases, BytesThatAreNoText) {
  const Phrases phrases("[\"\xc3\xa9t\xc3\xa9\"]", some_tokenizer(), 3, std::pmr::new_delete_resource());
  Phrases::Place place;
  EXPECT_EQ(phrases.read(place, "\xff\xc3\xe6\xbc\xc3\xa9T").size, 0u);
  EXPECT_EQ(place.open(), 3u);
  const Phrases::Hit hit = phrases.read(place, "\xc3\x89x");
  EXPECT_EQ(hit.size, 5u);
  EXPECT_EQ(hit.end, 2u);
}

// Those of the small tokenizer, "ab" and "abc" among them; special ones have no text here.
TEST(Phrases, TokensThatHaveOne) {
  const auto clean = [](const char* source) {
    const Phrases phrases(source, some_tokenizer(), 10, std::pmr::new_delete_resource());
    std::string out;
    for (int32_t id = 0; id < 10; ++id) out += phrases.is_clean(id) ? '1' : '0';
    return out;
  };
  EXPECT_EQ(clean("[\"AB\", \"d a\"]"), "1111100111");
  EXPECT_EQ(clean("[\"<s>\", \"#\", \"C\"]"), "1101110110");
}

TEST(Phrases, BadSourcesAreRefused) {
  const auto message = [](const std::string& source) -> std::string {
    try {
      const Phrases phrases(source, some_tokenizer(), 3, std::pmr::new_delete_resource());
    } catch (const base::Failure& failure) {
      EXPECT_EQ(failure.detail.status, GPTQ_E_INVALID_ARGUMENT);
      return failure.detail.message;
    }
    return "";
  };
  std::string many = "[\"x\"";
  for (int i = 1; i < 1000; ++i) many += ", \"p" + std::to_string(i) + "\"";
  EXPECT_EQ(message(many + "]"), "");
  EXPECT_NE(message(many + ", \"y\"]").find("1001"), std::string::npos);
  EXPECT_EQ(message("[\"" + std::string(256, 'a') + "\"]"), "");
  EXPECT_NE(message("[\"a\", \"" + std::string(257, 'a') + "\"]").find("/1"), std::string::npos);
  EXPECT_NE(message("[\"a\", \"\"]").find("/1"), std::string::npos);
  EXPECT_NE(message("[\"a\", 3]").find("/1"), std::string::npos);
  EXPECT_NE(message("[]").find("array"), std::string::npos);
  EXPECT_NE(message("{}").find("array"), std::string::npos);
  EXPECT_NE(message("[\"a\"").find("JSON"), std::string::npos);
}

}  // namespace
}  // namespace gptq::test
