// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding: the most urgent merge first, the leftmost of equal ones first.
#pragma once
#include <bitset>
#include <vector>

#include "text/piece_cache.h"
#include "text/tokenizer_file.h"
#include "text/vocabulary.h"

namespace gptq::text {

constexpr uint32_t no_rank = UINT32_MAX;

// Pairs of tokens to the rank of their merge and what it gives.
class MergeTable {
 public:
  MergeTable(const TokenizerFile& file, std::pmr::memory_resource* memory);
  // Merges symbols in place and shortens them. n log n in their number.
  void merge(std::pmr::vector<uint32_t>& symbols) const;

 private:
  struct Slot {
    uint32_t left = 0, right = 0, rank = no_rank, result = 0;
  };
  // An empty slot where there is no merge.
  const Slot& find(uint32_t left, uint32_t right) const {
    size_t at = start(left, right);
    if (!seen_[at % seen_.size()]) return none_;
    for (;; ++at) {
      const Slot& slot = slots_[at & mask_];
      if (slot.rank == no_rank || (slot.left == left && slot.right == right)) return slot;
    }
  }
  static size_t start(uint32_t left, uint32_t right) {
    const uint64_t mixed = (static_cast<uint64_t>(left) << 32 | right) * 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(mixed >> 24);
  }
  size_t merge_short(uint32_t* symbols, size_t n) const;
  void merge_long(std::pmr::vector<uint32_t>& symbols) const;

  std::pmr::vector<Slot> slots_;
  size_t mask_;
  Slot none_;
  std::bitset<1u << 21> seen_;  // by the same hash: most pairs have no merge, and this stays near the core
};

class Bpe {
 public:
  Bpe(const TokenizerFile& file, std::pmr::memory_resource* memory);

  // One encode call's working memory.
  struct Scratch {
    Scratch(size_t text_bytes, std::pmr::memory_resource* memory) : symbols(memory), cache(text_bytes > 16384, memory) {}
    std::pmr::vector<uint32_t> symbols;
    PieceCache cache;
    bool after_unknown = false;
  };

  // A piece of the pre-tokenizer: valid UTF-8, not empty.
  void encode(std::string_view piece, Scratch& scratch, std::pmr::vector<int32_t>& out) const;

 private:
  void encode_characters(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const;
  void encode_cut(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const;
  void encode_new(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const;
  void add_unknown(Scratch& scratch) const;
  void add_bytes(std::string_view text, Scratch& scratch) const;
  void add_characters(std::string_view text, Scratch& scratch) const;
  bool may_merge(char before, char after) const {
    return joins_[static_cast<unsigned char>(before) * 256u + static_cast<unsigned char>(after)];
  }

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::bitset<65536> joins_;  // last byte of a merge's left part, first byte of its right part
  uint32_t unknown_;
  bool characters_, fallback_, fuse_unknown_, cut_;
};

}  // namespace gptq::text
