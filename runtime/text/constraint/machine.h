// SPDX-License-Identifier: Apache-2.0
// States that are found when they are first reached, in memory of a fixed size: after construction nothing here allocates.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <span>
#include <vector>

#include "base/memory.h"
#include "text/constraint/token_trie.h"

namespace gptq::text::constraint {

// Gives equal sequences of numbers the same id, from 0.
class Interner {
 public:
  static constexpr uint32_t none = ~0u;
  Interner(uint32_t ids_max, uint32_t words_max, std::pmr::memory_resource* memory)
      : ids_max_(ids_max),
        words_max_(words_max),
        slots_(std::bit_ceil(ids_max * 2)),
        memory_(memory, (size_t{words_max} + ids_max + 1 + slots_) * 4) {
    words_ = reinterpret_cast<uint32_t*>(memory_.data());
    ends_ = words_ + words_max;
    table_ = ends_ + ids_max + 1;
    clear();
  }
  // none: no place is left.
  uint32_t add(std::span<const uint32_t> key) {
    const uint32_t at = slot_of(key);
    if (table_[at] != none) return table_[at];
    if (n_ == ids_max_ || key.size() > words_max_ - ends_[n_]) return none;
    std::copy(key.begin(), key.end(), words_ + ends_[n_]);
    ends_[n_ + 1] = ends_[n_] + static_cast<uint32_t>(key.size());
    return table_[at] = n_++;
  }
  bool has(std::span<const uint32_t> key) const { return table_[slot_of(key)] != none; }
  std::span<const uint32_t> at(uint32_t id) const { return {words_ + ends_[id], words_ + ends_[id + 1]}; }
  uint32_t size() const { return n_; }
  void clear() {
    n_ = 0;
    ends_[0] = 0;
    std::fill(table_, table_ + slots_, none);
  }

 private:
  // Of the key, or where it would be.
  uint32_t slot_of(std::span<const uint32_t> key) const {
    uint64_t hash = key.size() * 0x9E3779B97F4A7C15u;
    for (const uint32_t word : key) hash = (hash ^ word) * 0xD6E8FEB86659FD93u, hash ^= hash >> 32;
    uint32_t at = static_cast<uint32_t>(hash) & (slots_ - 1);
    while (table_[at] != none && !std::ranges::equal(this->at(table_[at]), key)) at = (at + 1) & (slots_ - 1);
    return at;
  }
  uint32_t ids_max_, words_max_, slots_, n_ = 0;
  base::Buffer memory_;
  uint32_t *words_, *ends_, *table_;
};

class Machine {
 public:
  struct Run { uint8_t first, last; };  // of bytes
  static constexpr uint32_t dead = 0;
  uint32_t next(uint32_t state, uint8_t byte) {
    uint16_t& known = rows_[size_t{state} * 256 + byte];
    if (known != unknown) return known;
    const uint32_t to = find(state, byte);
    if (full_) return to;
    const Run run = alike(state, byte);
    std::fill(&known - (byte - run.first), &known + (run.last - byte) + 1, static_cast<uint16_t>(to));
    return to;
  }
  virtual uint32_t start() = 0;
  virtual bool accepting(uint32_t state) = 0;
  // So many plain characters (TokenTrie::is_plain) may follow, whichever they are, and no more; 0: that is not known.
  virtual uint32_t plain_run(uint32_t state) = 0;
  static constexpr uint32_t endless = ~0u - 1;
  // The byte that will most likely come where white space, escapes and the order of keys are all that is open; or one of these.
  static constexpr int not_known = -1, nothing = -2;  // nothing: only the end
  virtual int likely(uint32_t state) = 0;
  // The classes of bytes (TokenTrie::class_of) that all lead back to the state.
  uint32_t loops(uint32_t state) {
    if (loops_[state] & known_loops) return loops_[state];
    uint32_t lead_away = 0;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const uint32_t of = TokenTrie::class_of(static_cast<uint8_t>(byte));
      if (!(lead_away & of) && (of == TokenTrie::unclassed || next(state, static_cast<uint8_t>(byte)) != state)) lead_away |= of;
    }
    return loops_[state] = static_cast<uint16_t>((TokenTrie::unclassed - 1u) & ~lead_away) | known_loops;
  }
  // A state was not found for want of place: what was returned since means nothing.
  bool full() const { return full_; }
  virtual void clear() {
    full_ = false;
    n_rows_ = 0;
  }
  uint32_t states_max() const { return states_max_; }

 protected:
  Machine(uint32_t states_max, std::pmr::memory_resource* memory)
      : states_max_(states_max), memory_(memory, size_t{states_max} * 512), loops_(states_max, 0, memory) {
    rows_ = reinterpret_cast<uint16_t*>(memory_.data());
  }
  ~Machine() = default;
  virtual uint32_t find(uint32_t state, uint8_t byte) = 0;
  // Bytes around this one that lead from the state to where it does.
  virtual Run alike(uint32_t, uint8_t byte) const { return {byte, byte}; }
  // Of a state that may be new.
  uint32_t with_row(uint32_t id) {
    if (id == Interner::none) {
      full_ = true;
      return dead;
    }
    for (; n_rows_ <= id; ++n_rows_) {
      std::memset(rows_ + size_t{n_rows_} * 256, n_rows_ ? 0xFF : 0, 512);
      loops_[n_rows_] = 0;
    }
    return id;
  }
  bool full_ = false;

 private:
  static constexpr uint16_t unknown = 0xFFFF, known_loops = 0x8000;
  uint32_t states_max_, n_rows_ = 0;
  base::Buffer memory_;
  std::pmr::vector<uint16_t> loops_;
  uint16_t* rows_;
};

}  // namespace gptq::text::constraint
