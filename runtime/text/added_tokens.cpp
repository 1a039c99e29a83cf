// SPDX-License-Identifier: Apache-2.0
// The search: tokens sorted by their text, narrowed byte by byte.
#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode/classes.h"
#include "text/utf8.h"

namespace gptq::text {

void AddedTokens::assign(std::pmr::vector<AddedToken>&& tokens) {
  tokens_ = std::move(tokens);
  std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return a.text != b.text ? a.text < b.text : a.id < b.id;
  });
  const auto same = [](const AddedToken& a, const AddedToken& b) { return a.text == b.text; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
  for (const AddedToken& token : tokens_) ++first_byte_begin_[static_cast<unsigned char>(token.text[0]) + 1];
  for (size_t i = 1; i < first_byte_begin_.size(); ++i) first_byte_begin_[i] += first_byte_begin_[i - 1];
}

const AddedToken* AddedTokens::find(std::string_view text, size_t& at) const {
  if (tokens_.empty()) return nullptr;
  for (; at < text.size(); ++at) {
    const auto first = static_cast<unsigned char>(text[at]);
    if (first_byte_begin_[first] == first_byte_begin_[first + 1]) continue;
    if (const AddedToken* token = longest_at(text.substr(at))) return token;
  }
  return nullptr;
}

const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const auto first = static_cast<unsigned char>(text[0]);
  auto low = tokens_.begin() + first_byte_begin_[first];
  auto high = tokens_.begin() + first_byte_begin_[first + 1];
  const AddedToken* best = nullptr;
  for (size_t depth = 1; low != high; ++depth) {
    // All of [low, high) begin with the first depth bytes of text; the shortest comes first.
    if (low->text.size() == depth) best = &*low++;
    if (depth == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[depth]);
    const auto below = [depth](const AddedToken& token, unsigned value) { return static_cast<unsigned char>(token.text[depth]) < value; };
    low = std::lower_bound(low, high, byte, below);
    high = std::lower_bound(low, high, byte + 1u, below);
  }
  return best;
}

size_t AddedTokens::strip_left(std::string_view text, size_t from, size_t to) {
  while (to > from) {
    const size_t last = last_character(text.substr(from, to - from)) + from;
    if (unicode::kind(character_at(text.data() + last).code) != unicode::Kind::space) break;
    to = last;
  }
  return to;
}

size_t AddedTokens::strip_right(std::string_view text, size_t from) {
  while (from < text.size()) {
    const Character c = character_at(text.data() + from);
    if (unicode::kind(c.code) != unicode::Kind::space) break;
    from += c.bytes;
  }
  return from;
}

}  // namespace gptq::text
