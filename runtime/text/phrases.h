// SPDX-License-Identifier: Apache-2.0
// Phrases that a text must not have, looked for as it grows; large and small letters are the same.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "text/literal_tree.h"
#include "text/tokenizer.h"

namespace gptq::text {

// Immutable once made; any number of threads may use it.
class Phrases {
 public:
  static constexpr size_t phrases_max = 1000, bytes_max = 256;
  // source: a JSON array of strings. Fails with INVALID_ARGUMENT and the place.
  Phrases(std::string_view source, const Tokenizer& tokenizer, uint32_t n_vocab, std::pmr::memory_resource* memory);

  // Where in a text that is read byte by byte.
  class Place {
   public:
    // Bytes at the end of the text that may belong to a phrase or to a character that is not complete.
    uint32_t open() const { return depth_ + n_; }

   private:
    friend Phrases;
    uint32_t node_ = 0;
    uint16_t depth_ = 0;
    uint8_t n_ = 0;
    char part_[4] = {};  // of a character
  };
  struct Hit {
    size_t end = 0;     // the byte behind it
    uint32_t size = 0;  // of the phrase in bytes; 0: there is none
  };
  // The first phrase that ends among these bytes, of several the shortest; the place is behind it, or behind them all.
  Hit read(Place& place, std::string_view bytes) const;

  // Tokens whose own text has no phrase: a bit each.
  std::span<const uint32_t> clean() const { return clean_; }
  bool is_clean(int32_t token) const { return clean_[static_cast<size_t>(token) / 32] >> (token % 32) & 1; }

 private:
  uint32_t feed(Place& place, std::string_view bytes) const;

  LiteralTree tree_;                // value: the bytes of the shortest phrase that ends here
  uint32_t first_[256] = {};        // from its root
  std::pmr::vector<uint32_t> clean_;
};

}  // namespace gptq::text
