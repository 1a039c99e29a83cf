// SPDX-License-Identifier: Apache-2.0
// From texts to tokens: whole texts in a hash table, single bytes and characters where merging begins.
#pragma once
#include <array>
#include <cstring>
#include <memory_resource>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

namespace gptq::text {

constexpr uint32_t no_token = UINT32_MAX;

// Texts to ids, by open addressing. Up to 8 bytes are their own key; longer ones are compared with the token's text.
class TextTable {
 public:
  TextTable(const TokenizerFile& file, std::pmr::memory_resource* memory) : file_(file), slots_(memory) {}
  void reserve(size_t n);
  void insert(uint32_t id);
  uint32_t find(std::string_view text) const {
    const uint64_t key = key_of(text);
    for (size_t at = start(key, text.size());; ++at) {
      const Slot& slot = slots_[at & mask_];
      if (slot.id == no_token) return no_token;
      if (slot.key == key && slot.bytes == text.size() && (text.size() <= 8 || file_.text(slot.id) == text)) return slot.id;
    }
  }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t bytes = 0, id = no_token;
  };

  static uint64_t load(const char* p, size_t n) {
    uint64_t word = 0;
    std::memcpy(&word, p, n);
    return word;
  }
  static uint64_t key_of(std::string_view text);
  size_t start(uint64_t key, size_t bytes) const {
    const uint64_t mixed = (key ^ bytes) * 0x9E3779B97F4A7C15u;
    return static_cast<size_t>(mixed ^ mixed >> 32);
  }

  const TokenizerFile& file_;
  std::pmr::vector<Slot> slots_;
  size_t mask_ = 0;
};

inline uint64_t TextTable::key_of(std::string_view text) {
  const char* p = text.data();
  const size_t n = text.size();
  if (n <= 8) {
    if (n == 8) return load(p, 8);
    if (n >= 4) return load(p, 4) | load(p + n - 4, 4) << (8 * (n - 4));
    uint64_t key = 0;
    for (size_t i = 0; i < n; ++i) key |= static_cast<uint64_t>(static_cast<unsigned char>(p[i])) << (8 * i);
    return key;
  }
  uint64_t key = load(p + n - 8, 8);
  for (size_t i = 0; i + 8 < n; i += 8) {
    key = (key ^ load(p + i, 8)) * 0xD6E8FEB86659FD93u;
    key ^= key >> 32;
  }
  return key;
}

class Vocabulary {
 public:
  Vocabulary(const TokenizerFile& file, std::pmr::memory_resource* memory);

  uint32_t whole(std::string_view text) const { return whole_.find(text); }
  uint32_t byte(unsigned char value) const { return bytes_[value]; }           // the token of a single byte
  uint32_t fallback(unsigned char value) const { return fallback_[value]; }    // <0x..>
  uint32_t character(std::string_view text) const {
    return text.size() == 1 ? bytes_[static_cast<unsigned char>(text[0])] : characters_.find(text);
  }

 private:
  TextTable whole_, characters_;
  std::array<uint32_t, 256> bytes_, fallback_;
};

}  // namespace gptq::text
