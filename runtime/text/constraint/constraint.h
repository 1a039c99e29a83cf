// SPDX-License-Identifier: Apache-2.0
// What a generated text must be: a table over bytes, and which tokens may come next in each of its states.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "text/constraint/regex.h"
#include "text/constraint/token_trie.h"
#include "text/tokenizer.h"

namespace gptq::text::constraint {

// The tree of all tokens that are text: no special ones, none of ends.
TokenTrie trie_of(const Tokenizer& tokenizer, uint32_t n_vocab, std::span<const int32_t> ends, std::pmr::memory_resource* memory);
// A JSON array of strings as a regular expression for one of them.
std::pmr::string choices(std::string_view json, std::pmr::memory_resource* memory);

// Any number of threads may use it. After construction nothing here allocates.
class Constraint {
 public:
  using State = uint32_t;
  static constexpr State dead = Regex::kDead;
  // trie must outlive it. The masks it keeps take cache_bytes at most.
  Constraint(std::string_view regex, const RegexLimits& limits, const TokenTrie& trie, std::span<const int32_t> ends, size_t cache_bytes,
             std::pmr::memory_resource* memory);

  uint32_t start() const { return regex_.start(); }
  // The state after these bytes, or Regex::kDead.
  uint32_t step(uint32_t state, std::string_view bytes) const;
  bool accepts(uint32_t state) const { return regex_.accepting(state); }
  // Nothing but the end can follow.
  bool complete(uint32_t state) const { return regex_.final(state); }

  size_t mask_words() const { return (trie_.tokens() + 31) / 32; }
  // Bit id: token id may come next; end tokens where the text may end. scratch: mask_words(), used where the state's mask is not kept.
  // skips_space: the text loses a space it begins with; only at the start.
  std::span<const uint32_t> mask(uint32_t state, bool skips_space, std::span<uint32_t> scratch) const;

 private:
  void fill(uint32_t state, bool skips_space, std::span<uint32_t> bits) const;

  const TokenTrie& trie_;
  const std::pmr::vector<int32_t> ends_;
  const Regex regex_;
  const uint32_t n_slots_;
  mutable std::pmr::vector<uint32_t> masks_;                // [n_slots_][mask_words()]
  mutable std::pmr::vector<std::atomic<uint32_t>> slot_of_;  // of a state, from 1; 0: its mask is not kept
  mutable std::atomic<uint32_t> n_taken_{0};
};

}  // namespace gptq::text::constraint
