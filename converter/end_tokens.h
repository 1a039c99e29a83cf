// SPDX-License-Identifier: Apache-2.0
// Which tokens end a text, and why each does.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::convert {

struct TokenizerDescription;  // tokenizer/description.h

class EndTokens {
 public:
  explicit EndTokens(uint32_t n_vocab) : n_vocab_(n_vocab) {}
  void add(int32_t id, std::string_view why);  // -1: none
  // The tokenizer's own end token, and special tokens known to end a text, as <|im_end|>.
  void add(const TokenizerDescription& tokenizer);
  const std::vector<int32_t>& ids() const { return ids_; }
  const std::string& reasons() const { return reasons_; }  // "2 config.json; 7 the tokenizer's eos </s>"

 private:
  uint32_t n_vocab_;
  std::vector<int32_t> ids_;
  std::string reasons_;
};

}  // namespace gptq::convert
