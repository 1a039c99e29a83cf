// SPDX-License-Identifier: Apache-2.0
// Keys and values into the pages of a KV cache: rows are converted as a whole, then put in their places.
#pragma once
#include "kernels/kv.h"
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

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

void store_row(std::byte* to, uint32_t step, const float* from, uint32_t n, KvKind kind, float* int8_scale) {
  const uint32_t padded = kv_row_elements(n);
  uint16_t halves[largest_head];
  int8_t codes[largest_head];
  switch (kind) {
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
      const uint32_t position = a.first_position + i, k_dim = a.kv.key_dim, v_dim = a.kv.value_dim;
      const float* k = a.k + uint64_t{i} * a.k_stride + uint64_t{head} * k_dim;
      const float* v = a.v + uint64_t{i} * a.v_stride + uint64_t{head} * v_dim;
      store_row(kv_key(a.kv, head, position), 16, k, k_dim, a.kv.kind, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, v, v_dim, a.kv.kind, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace
}  // namespace gptq::kernels
