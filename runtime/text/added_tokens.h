// SPDX-License-Identifier: Apache-2.0
// Tokens that are found in the text before all else: the first place, there the longest.
#pragma once
#include <array>
#include <cstdint>
#include <memory_resource>
#include <string_view>
#include <vector>

namespace gptq::text {

struct AddedToken {
  std::string_view text;
  uint32_t id;
  bool special, lstrip, rstrip;
};

class AddedTokens {
 public:
  static constexpr size_t text_bytes_max = 256;  // bounds the work at each byte of a text

  explicit AddedTokens(std::pmr::memory_resource* memory) : tokens_(memory) {}
  void assign(std::pmr::vector<AddedToken>&& tokens);
  bool empty() const { return tokens_.empty(); }

  // Calls plain(text, begins) for the stretches between added tokens, none empty, and token(id) for those. begins: at the start of text.
  // Special tokens are passed over unless honours(begin, end) of their place. White space beside a token that strips it is dropped.
  template <class Honours, class Plain, class Token>
  void split(std::string_view text, const Honours& honours, const Plain& plain, const Token& token) const {
    size_t done = 0;
    for (size_t at = 0; const AddedToken* found = find(text, at);) {
      size_t begin = at, end = at + found->text.size();
      at = end;
      if (found->special && !honours(begin, end)) continue;
      if (found->lstrip) begin = strip_left(text, done, begin);
      if (found->rstrip) end = strip_right(text, end);
      if (done < begin) plain(text.substr(done, begin - done), done == 0);
      token(found->id);
      done = end;
    }
    if (done < text.size()) plain(text.substr(done), done == 0);
  }

 private:
  // The first token at or after at, which moves to its place; NULL: none.
  const AddedToken* find(std::string_view text, size_t& at) const;
  const AddedToken* longest_at(std::string_view text) const;
  static size_t strip_left(std::string_view text, size_t from, size_t to);
  static size_t strip_right(std::string_view text, size_t from);

  std::pmr::vector<AddedToken> tokens_;          // in order of their text
  std::array<uint32_t, 257> first_byte_begin_{};  // where the tokens that begin with a byte begin
};

}  // namespace gptq::text
