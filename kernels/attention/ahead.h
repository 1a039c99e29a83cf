// SPDX-License-Identifier: Apache-2.0
// Asks for keys and values a little before they are read: they lie in short runs all over memory, and the work on each is long enough
// that a processor does not look ahead as far as the next.
#pragma once
#include "kernels/kv.h"
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

class Ahead {
 public:
  Ahead() = default;  // does nothing
  // Blocks begin .. end - 1 in the order attention reads them: keys, then values, of each up to the position `last`.
  Ahead(const AttentionArgs& a, uint32_t kv_head, uint32_t begin, uint32_t end, uint32_t last)
      : kv_(&a.kv), kv_head_(kv_head), block_(begin), end_(end), last_(last), key_lines_(lines(a.kv.key_dim, a.kv.kinds.keys)),
        value_lines_(lines(a.kv.value_dim, a.kv.kinds.values)) {
    if (begin * attention_block > last) kv_ = nullptr;
    if (!kv_) return;
    position_ = begin * attention_block;
    line_ = kv_key(*kv_, kv_head_, position_);
    left_ = key_lines_;
    go(2 * key_lines_);
  }

  // Before part / whole of the work on so many tiles of 16 rows.
  void keys(uint32_t tiles, uint32_t whole, uint32_t part) {
    if (kv_) go(tiles * key_lines_ * part / whole);
  }
  void values(uint32_t tiles, uint32_t whole, uint32_t part) {
    if (kv_) go(tiles * value_lines_ * part / whole);
  }

 private:
  static uint32_t lines(uint32_t dim, KvKind kind) { return static_cast<uint32_t>(kv_bytes(kind, 16 * kv_row_elements(dim)) / 64); }  // of a tile
  void go(uint32_t lines) {
    while (lines-- && kv_) {
      prefetch(line_);
      line_ += 64;
      if (--left_ == 0) next_tile();
    }
  }
  void next_tile() {
    position_ += 16;
    if (position_ > last_ || position_ % attention_block == 0) {
      if (values_ && (++block_ >= end_ || block_ * attention_block > last_)) {
        kv_ = nullptr;
        return;
      }
      position_ = block_ * attention_block;
      values_ = !values_;
    }
    line_ = values_ ? kv_value(*kv_, kv_head_, position_) : kv_key(*kv_, kv_head_, position_);
    left_ = values_ ? value_lines_ : key_lines_;
  }

  const KvView* kv_ = nullptr;  // NULL: nothing is left to ask for
  uint32_t kv_head_ = 0, block_ = 0, end_ = 0, last_ = 0, key_lines_ = 0, value_lines_ = 0, position_ = 0, left_ = 0;
  bool values_ = false;
  const std::byte* line_ = nullptr;
};

}  // namespace
}  // namespace gptq::kernels
