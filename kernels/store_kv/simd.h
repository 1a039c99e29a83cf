// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: rows are converted as a whole, then put in their places.
#pragma once
#include "kernels/kv.h"
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_head_dim = 512;

// Row elements `step` apart, zeros behind the n there are.
template <class T>
void put(std::byte* to, uint32_t step, const T* row, uint32_t n, uint32_t padded) {
  auto* elements = reinterpret_cast<T*>(to);
  if (step == 1) {
    memcpy(to, row, n * sizeof(T));
    memset(elements + n, 0, (padded - n) * sizeof(T));
    return;
  }
  for (uint32_t d = 0; d < n; ++d) elements[d * step] = row[d];
  for (uint32_t d = n; d < padded; ++d) elements[d * step] = 0;
}

// Whole vectors of a row of n elements; zeros behind.
GPTQ_INLINE Floats load_row(const float* from, uint32_t d, uint32_t n) { return d + lanes <= n ? load(from + d) : load_part(from + d, n - d); }

// Returns the scale. Magnitudes are compared as bits, where NaN is largest, so that it reaches the outputs.
float to_int8(const float* from, uint32_t n, int8_t* to) {
  Floats most = all(0);
  for (uint32_t d = 0; d < n; d += lanes) most = larger_bits(most, magnitude(load_row(from, d, n)));
  float lane[lanes];
  store(lane, most);
  uint32_t bits = 0;
  for (const float m : lane) bits = bits_from_float(m) > bits ? bits_from_float(m) : bits;
  const float max = float_from_bits(bits);
  const Floats inverse = all(max < 1e-30f ? 0 : 127 / max);
  for (uint32_t d = 0; d < n; d += lanes) store_int8(to + d, multiply(load_row(from, d, n), inverse));
  return max < 1e-30f ? 0 : max / 127;
}

void store_row(std::byte* to, uint32_t step, const float* from, const KvView& kv, float* int8_scale) {
  const uint32_t n = kv.head_dim, padded = kv_row_elements(n);
  uint16_t halves[max_head_dim];
  int8_t codes[max_head_dim];
  switch (kv.kind) {
    case KvKind::f32: return put(to, step, from, n, padded);
    case KvKind::f16:
      for (uint32_t d = 0; d < n; d += lanes) store_half(halves + d, load_row(from, d, n));
      return put(to, step, halves, n, padded);
    case KvKind::i8:
      *int8_scale = to_int8(from, n, codes);
      return put(to, step, codes, n, padded);
  }
}

GPTQ_INLINE void store_rows(const StoreKvArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head) {
      const uint64_t from = uint64_t{i} * a.stride + uint64_t{head} * a.kv.head_dim;
      const uint32_t position = a.first_position + i;
      store_row(kv_key(a.kv, head, position), 16, a.k + from, a.kv, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, a.v + from, a.kv, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace
}  // namespace gptq::kernels
