// SPDX-License-Identifier: Apache-2.0
// A regular expression as a table over bytes: whole texts match, dead ends are cut, its size is bounded at compile.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "text/constraint/token_trie.h"

namespace gptq::text::constraint {

struct RegexLimits {
  uint32_t nodes = 20000;
  uint32_t states = 4096;
  uint64_t work = 50'000'000;
  uint32_t nesting = 200;
};

class Regex {
 public:
  static constexpr uint32_t kDead = 0;
  // Literals, escapes, ., classes of ASCII characters, groups, |, * + ? {m,n}; all else is refused with its offset.
  Regex(std::string_view pattern, const RegexLimits& limits, std::pmr::memory_resource* memory);
  uint32_t start() const { return start_; }
  uint32_t step(uint32_t state, uint8_t byte) const { return next_[state * 256 + byte]; }
  bool accepting(uint32_t state) const { return accepting_[state] != 0; }
  size_t states() const { return accepting_.size(); }
  // Accepting, and nothing may follow.
  bool final(uint32_t state) const { return accepting_[state] == 2; }
  // Sets bit id of bits for every token that may come next. skips_space: a token's leading space does not count.
  void mask(uint32_t state, bool skips_space, const TokenTrie& trie, std::span<uint32_t> bits) const;

 private:
  std::pmr::vector<uint32_t> next_;
  std::pmr::vector<uint8_t> accepting_;
  uint32_t start_ = kDead;
};

}  // namespace gptq::text::constraint
