// SPDX-License-Identifier: Apache-2.0
// A KV cache of one layer whose pages lie in random order, full of NaN (int8: of scales that are NaN) until written.
#pragma once
#include <algorithm>

#include "kernel_test.h"
#include "kernels/half.h"

namespace gptq::kernels {

class TestCache {
 public:
  TestCache(uint32_t positions, uint32_t page_tokens, uint32_t n_kv_heads, uint32_t key_dim, uint32_t value_dim, KvKind kind, std::mt19937& random) {
    const uint64_t rows = uint64_t{n_kv_heads} * page_tokens, n_pages = positions / page_tokens + 1;
    const uint64_t keys = rows * row_bytes(key_dim, kind), values = rows * row_bytes(value_dim, kind);
    pages_.resize(n_pages);
    for (uint32_t p = 0; p < n_pages; ++p) pages_[p] = p;
    std::shuffle(pages_.begin(), pages_.end(), random);
    bytes_.assign(n_pages * (keys + values + 64), std::byte{0xff});
    view = {.base = bytes_.data(),
            .pages = pages_.data(),
            .page_stride = keys + values + 64,
            .value_offset = keys + 64,
            .page_tokens = page_tokens,
            .n_kv_heads = n_kv_heads,
            .key_dim = key_dim,
            .value_dim = value_dim,
            .kind = kind};
  }
  TestCache(const TestCache&) = delete;

  float get(uint32_t position, uint32_t head, uint32_t d, bool value) {
    const std::byte* from = at(position, head, d, value);
    if (view.kind == KvKind::i8) return static_cast<float>(static_cast<int8_t>(*from)) * *scale(position, head, value);
    float f;
    uint16_t half;
    memcpy(&f, from, size(view.kind));
    memcpy(&half, &f, 2);
    return view.kind == KvKind::f32 ? f : float_from_half(half);
  }
  // A row of key_dim or value_dim numbers.
  void set(uint32_t position, uint32_t head, bool value, const float* row) {
    float max = 0;
    for (uint32_t d = 0; d < dim(value); ++d) max = std::max(max, std::fabs(row[d]));
    for (uint32_t d = 0; d < padded(dim(value)); ++d) {
      const float x = d < dim(value) ? row[d] : 0;
      const uint16_t half = half_from_float(x);
      const auto code = static_cast<int8_t>(view.kind == KvKind::i8 ? std::nearbyint(x * (127 / max)) : 0);
      memcpy(at(position, head, d, value), view.kind == KvKind::f32 ? static_cast<const void*>(&x) : view.kind == KvKind::f16 ? static_cast<const void*>(&half) : &code,
             size(view.kind));
    }
    if (view.kind == KvKind::i8) *scale(position, head, value) = max / 127;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  KvView view;

 private:
  static uint32_t padded(uint32_t dim) { return (dim + 15) / 16 * 16; }
  static uint32_t row_bytes(uint32_t dim, KvKind kind) { return padded(dim) * size(kind) + (kind == KvKind::i8 ? 4 : 0); }
  uint32_t dim(bool value) const { return value ? view.value_dim : view.key_dim; }
  static uint32_t size(KvKind kind) { return kind == KvKind::f32 ? 4 : kind == KvKind::f16 ? 2 : 1; }
  std::byte* half(uint32_t position, bool value) {
    return view.base + view.pages[position / view.page_tokens] * view.page_stride + (value ? view.value_offset : 0);
  }
  std::byte* at(uint32_t position, uint32_t head, uint32_t d, bool value) {
    const uint64_t row = uint64_t{head} * view.page_tokens + position % view.page_tokens;
    const uint64_t key = (row / 16 * padded(view.key_dim) + d) * 16 + row % 16;
    return half(position, value) + (value ? row * padded(view.value_dim) + d : key) * size(view.kind);
  }
  float* scale(uint32_t position, uint32_t head, bool value) {
    const uint64_t rows = uint64_t{view.n_kv_heads} * view.page_tokens;
    return reinterpret_cast<float*>(half(position, value) + rows * padded(dim(value))) + head * view.page_tokens + position % view.page_tokens;
  }

  std::vector<uint32_t> pages_;
  std::vector<std::byte> bytes_;
};

inline const char* name_of(KvKind kind) { return kind == KvKind::f16 ? "f16" : kind == KvKind::f32 ? "f32" : "i8"; }

}  // namespace gptq::kernels
