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

constexpr uint32_t not_finite = 0x7f800000;
uint32_t magnitude_bits(float x) { return bits_from_float(x) & 0x7fffffff; }

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

// Codes in 4 bits, two in a byte, and in 32 bits the row's scale and offset. What is not finite makes them NaN.
float to_int4(const float* from, uint32_t n, bool key, uint8_t* bytes) {
  Floats low = all(from[0]), high = low, largest = all(0);
  uint32_t d = 0;
  const auto look_at = [&](Floats x) __attribute__((always_inline)) {
    low = smaller(low, x), high = larger(high, x), largest = larger_bits(largest, magnitude(x));
  };
  for (; d + lanes <= n; d += lanes) look_at(load(from + d));
  for (; d < n; ++d) look_at(all(from[d]));
  float lowest[lanes], highest[lanes], bits[lanes];
  store(lowest, low), store(highest, high), store(bits, largest);
  bool finite = true;
  for (uint32_t i = 0; i < lanes; ++i) {
    finite &= magnitude_bits(bits[i]) < not_finite;
    lowest[0] = lowest[i] < lowest[0] ? lowest[i] : lowest[0];
    highest[0] = highest[i] > highest[0] ? highest[i] : highest[0];
  }
  const uint16_t offset16 = bf16_from_float(lowest[0]);
  const float offset = float_from_bf16(offset16);
  const float step = (highest[0] - offset) / 15;
  const uint16_t scale16 = bf16_from_float(step < 0 ? 0 : step);
  const float scale = float_from_bf16(scale16);
  const uint32_t row = kv_row_elements(n);
  finite &= magnitude_bits(offset) < not_finite && magnitude_bits(scale) < not_finite;
  if (!finite) {
    memset(bytes, 0, row / 2);
    return float_from_bits(0x7fc07fc0);
  }
  int8_t codes[largest_head];
  const Floats inverse = all(scale < 1e-30f ? 0 : 1 / scale);
  for (d = 0; d < n; d += lanes) {
    const Floats code = multiply(subtract(load_row(from, d, n), all(offset)), inverse);
    store_int8(codes + d, smaller(larger(code, all(0)), all(15)));
  }
  memset(codes + n, 0, row - n);
  const uint32_t apart = key ? 1 : 8;
  for (uint32_t i = 0; i < row / 2; ++i) {
    const int8_t* code = codes + (key ? 2 * i : i / 8 * 16 + i % 8);
    bytes[i] = static_cast<uint8_t>(code[0] | code[apart] << 4);
  }
  return float_from_bits(uint32_t{scale16} << 16 | offset16);
}

void store_row(std::byte* to, uint32_t step, const float* from, uint32_t n, KvKind kind, float* scale) {
  const uint32_t padded = kv_row_elements(n);
  uint16_t halves[largest_head];
  int8_t codes[largest_head];
  uint8_t bytes[largest_head / 2];
  switch (kind) {
    case KvKind::f32: return put(to, step, from, n, padded);
    case KvKind::f16:
      for (uint32_t d = 0; d < n; d += lanes) store_half(halves + d, load_row(from, d, n));
      return put(to, step, halves, n, padded);
    case KvKind::i8:
      *scale = to_int8(from, n, codes);
      return put(to, step, codes, n, padded);
    case KvKind::i4:
      *scale = to_int4(from, n, step > 1, bytes);
      return put(to, step, bytes, padded / 2, padded / 2);
  }
}

// A key in 4 bits as it was rounded.
void read_key_4(const std::byte* key, uint32_t n, float word, float* to) {
  const float scale = float_from_bits(bits_from_float(word) & 0xffff0000), offset = float_from_bits(bits_from_float(word) << 16);
  float table[16];
  for (uint32_t i = 0; i < 16; ++i) table[i] = scale * static_cast<float>(i) + offset;
  for (uint32_t d = 0; d < n; d += 2) {
    const auto codes = static_cast<uint32_t>(key[d * 8]);
    to[d] = table[codes & 15], to[d + 1] = table[codes >> 4];
  }
}

GPTQ_INLINE void store_rows(const StoreKvArgs& a) {
  float first[largest_head + 1], difference[largest_head];
  for (uint32_t head = 0; head < a.kv.n_kv_heads; ++head)
    for (uint32_t i = 0, known = UINT32_MAX; i < a.m; ++i) {
      const uint32_t position = a.first_position + i, k_dim = a.kv.key_dim, v_dim = a.kv.value_dim;
      const float* k = a.k + uint64_t{i} * a.k_stride + uint64_t{head} * k_dim;
      const float* v = a.v + uint64_t{i} * a.v_stride + uint64_t{head} * v_dim;
      if (kv_key_is_relative(a.kv, position)) {
        const uint32_t tile = position / 16 * 16;
        if (known != tile) read_key_4(kv_key(a.kv, head, tile), k_dim, *kv_key_scales(a.kv, head, tile), first);
        known = tile;
        for (uint32_t d = 0; d < k_dim; ++d) difference[d] = k[d] - first[d];
        k = difference;
      }
      store_row(kv_key(a.kv, head, position), 16, k, k_dim, a.kv.kinds.keys, kv_key_scales(a.kv, head, position));
      store_row(kv_value(a.kv, head, position), 1, v, v_dim, a.kv.kinds.values, kv_value_scales(a.kv, head, position));
    }
}

}  // namespace
}  // namespace gptq::kernels
