// SPDX-License-Identifier: Apache-2.0
// A tokenizer from its description, and small descriptions to try things on.
#pragma once
#include <memory_resource>
#include <string>
#include <vector>

#include "converter/tokenizer/import.h"
#include "text/tokenizer.h"

namespace gptq::test {

using Ids = std::vector<int32_t>;

class TestTokenizer {
 public:
  explicit TestTokenizer(const convert::TokenizerDescription& description, uint32_t n_vocab = 1u << 20)
      : blob_(convert::compile_tokenizer(description)), tokenizer_(std::as_bytes(std::span(blob_)), n_vocab, std::pmr::new_delete_resource()) {}
  const text::Tokenizer& get() const { return tokenizer_; }

  Ids encode(std::string_view text, text::EncodeOptions options = {}) const {
    std::pmr::vector<int32_t> ids;
    tokenizer_.encode(text, options, ids);
    return {ids.begin(), ids.end()};
  }
  std::string decode(const Ids& ids) const {
    std::string text;
    for (const int32_t id : ids) text += tokenizer_.token_bytes(id);
    return tokenizer_.strips_leading_space() && text.starts_with(' ') ? text.substr(1) : text;
  }

 private:
  std::vector<uint8_t> blob_;
  text::Tokenizer tokenizer_;
};

// Letters a-d, a space, "ab", "abc", " a", a special token <s> (id 8) and an added token "##" (id 9) that strips the space after it.
inline convert::TokenizerDescription small_description(text::fb::Alphabet alphabet) {
  convert::TokenizerDescription t;
  t.alphabet = alphabet;
  for (const char* text : {"a", "b", "c", "d", " ", "ab", "abc", " a"}) t.tokens.push_back({text, true});
  t.tokens.push_back({"<s>", false, false, true});
  t.tokens.push_back({"##"});
  t.merges = {{0, 1, 5}, {5, 2, 6}, {4, 0, 7}};
  t.added = {{8, "<s>"}, {9, "##", false, true}};
  t.before = {8};
  t.bos = {8, "<s>"};
  return t;
}

// What a GGUF file with this tokenizer would say.
convert::GgufVocabulary gguf_of(const convert::TokenizerDescription& description);

}  // namespace gptq::test
