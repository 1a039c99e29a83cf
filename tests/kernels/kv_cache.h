// SPDX-License-Identifier: Apache-2.0
// A KV cache of one layer whose pages lie in random order, full of NaN (in 8 and 4 bits: of scales that are NaN) until written.
#pragma once
#include <algorithm>

#include "kernel_test.h"
#include "kernels/half.h"

namespace gptq::kernels {

class TestCache {
 public:
  TestCache(uint32_t positions, uint32_t page_tokens, uint32_t n_kv_heads, uint32_t key_dim, uint32_t value_dim, KvKinds kinds, std::mt19937& random) {
    const uint64_t rows = uint64_t{n_kv_heads} * page_tokens, n_pages = positions / page_tokens + 1;
    const uint64_t keys = rows * row_bytes(key_dim, kinds.keys), values = rows * row_bytes(value_dim, kinds.values);
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
            .kinds = kinds};
  }
  TestCache(const TestCache&) = delete;

  float get(uint32_t position, uint32_t head, uint32_t d, bool value) {
    const std::byte* from = at(position, head, d, value);
    uint32_t word = 0;
    float f;
    switch (kind(value)) {
      case KvKind::f32: memcpy(&f, from, 4); return f;
      case KvKind::f16: memcpy(&word, from, 2); return float_from_half(static_cast<uint16_t>(word));
      case KvKind::i8: return static_cast<float>(static_cast<int8_t>(*from)) * *scale(position, head, value);
      case KvKind::i4: break;
    }
    memcpy(&word, scale(position, head, value), 4);
    const auto codes = static_cast<uint32_t>(*from);
    return float_from_bf16(static_cast<uint16_t>(word >> 16)) * static_cast<float>(is_high(d, value) ? codes >> 4 : codes & 15) +
           float_from_bf16(static_cast<uint16_t>(word)) + base(position, head, d, value);
  }
  // A row of key_dim or value_dim numbers.
  void set(uint32_t position, uint32_t head, bool value, const float* row) {
    if (kind(value) == KvKind::i4) return set_4(position, head, value, row);
    float max = 0;
    for (uint32_t d = 0; d < dim(value); ++d) max = std::max(max, std::fabs(row[d]));
    for (uint32_t d = 0; d < padded(dim(value)); ++d) {
      const float x = d < dim(value) ? row[d] : 0;
      const uint16_t half = half_from_float(x);
      const auto code = static_cast<int8_t>(kind(value) == KvKind::i8 ? std::nearbyint(x * (127 / max)) : 0);
      const void* from[] = {&half, &x, &code};
      memcpy(at(position, head, d, value), from[static_cast<int>(kind(value))], size(kind(value)));
    }
    if (kind(value) == KvKind::i8) *scale(position, head, value) = max / 127;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  KvView view;

 private:
  static uint32_t padded(uint32_t dim) { return (dim + 15) / 16 * 16; }
  // What a key in 4 bits is relative to: that at the beginning of its 16 positions.
  float base(uint32_t position, uint32_t head, uint32_t d, bool value) { return value || position % 16 == 0 ? 0 : get(position / 16 * 16, head, d, value); }
  void set_4(uint32_t position, uint32_t head, bool value, const float* absolute) {
    std::vector<float> differences(absolute, absolute + dim(value));
    for (uint32_t d = 0; d < dim(value); ++d) differences[d] -= base(position, head, d, value);
    const float* row = differences.data();
    const auto [least, most] = std::minmax_element(row, row + dim(value));
    const uint16_t offset = bf16_from_float(*least), scale_bits = bf16_from_float(std::max(0.0f, (*most - float_from_bf16(offset)) / 15));
    const float inverse = scale_bits ? 1 / float_from_bf16(scale_bits) : 0;
    for (uint32_t d = 0; d < padded(dim(value)); ++d) {
      const float code = d < dim(value) ? std::nearbyint((row[d] - float_from_bf16(offset)) * inverse) : 0;
      std::byte& to = *at(position, head, d, value);
      const auto bits = static_cast<std::byte>(std::clamp(code, 0.0f, 15.0f));
      to = is_high(d, value) ? (to & std::byte{15}) | bits << 4 : (to & std::byte{0xf0}) | bits;
    }
    const uint32_t word = uint32_t{scale_bits} << 16 | offset;
    memcpy(scale(position, head, value), &word, sizeof word);
  }
  // Of two elements in a byte the second.
  static bool is_high(uint32_t d, bool value) { return value ? d % 16 >= 8 : d % 2; }
  KvKind kind(bool value) const { return value ? view.kinds.values : view.kinds.keys; }
  static uint32_t bytes_of(uint32_t elements, KvKind kind) { return kind == KvKind::i4 ? elements / 2 : elements * size(kind); }
  static uint32_t row_bytes(uint32_t dim, KvKind kind) { return bytes_of(padded(dim), kind) + (kind >= KvKind::i8 ? 4 : 0); }
  uint32_t dim(bool value) const { return value ? view.value_dim : view.key_dim; }
  static uint32_t size(KvKind kind) { return kind == KvKind::f32 ? 4 : kind == KvKind::f16 ? 2 : 1; }
  std::byte* half(uint32_t position, bool value) {
    return view.base + view.pages[position / view.page_tokens] * view.page_stride + (value ? view.value_offset : 0);
  }
  std::byte* at(uint32_t position, uint32_t head, uint32_t d, bool value) {
    const uint64_t row = uint64_t{head} * view.page_tokens + position % view.page_tokens;
    if (kind(value) == KvKind::i4)
      return half(position, value) + (value ? row * padded(view.value_dim) / 2 + d / 16 * 8 + d % 8 : (row / 16 * padded(view.key_dim) / 2 + d / 2) * 16 + row % 16);
    const uint64_t key = (row / 16 * padded(view.key_dim) + d) * 16 + row % 16;
    return half(position, value) + (value ? row * padded(view.value_dim) + d : key) * size(kind(value));
  }
  float* scale(uint32_t position, uint32_t head, bool value) {
    const uint64_t rows = uint64_t{view.n_kv_heads} * view.page_tokens;
    return reinterpret_cast<float*>(half(position, value) + rows * bytes_of(padded(dim(value)), kind(value))) + head * view.page_tokens + position % view.page_tokens;
  }

  std::vector<uint32_t> pages_;
  std::vector<std::byte> bytes_;
};

inline const char* name_of(KvKind kind) { return kind == KvKind::f16 ? "f16" : kind == KvKind::f32 ? "f32" : kind == KvKind::i8 ? "i8" : "i4"; }
inline std::string name_of(KvKinds kinds) { return std::string(name_of(kinds.keys)) + ":" + name_of(kinds.values); }

}  // namespace gptq::kernels
