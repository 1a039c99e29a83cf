// SPDX-License-Identifier: Apache-2.0
// One row into a cache: the specification.
#pragma once
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {

// NaN wins, so that it reaches the outputs.
static inline float largest(const float* x, uint32_t n) {
  float max = 0;
  for (uint32_t d = 0; d < n && !isnan(max); ++d)
    if (!(fabsf(x[d]) <= max)) max = fabsf(x[d]);
  return max;
}

static inline int8_t code(float q) { return static_cast<int8_t>(isfinite(q) ? nearbyintf(q) : 0); }

// The bfloat16 scale and offset of a row in 4 bits, and what it is divided by. What is not finite makes them NaN.
struct Grid {
  float scale, offset, inverse;
};
static inline Grid grid_of(float least, float most) {
  const float offset = float_from_bf16(bf16_from_float(least)), step = (most - offset) / 15, scale = float_from_bf16(bf16_from_float(step < 0 ? 0 : step));
  if (!isfinite(offset) || !isfinite(scale)) return {NAN, NAN, 0};
  return {scale, offset, scale < 1e-30f ? 0 : 1 / scale};
}

static inline void store_row_4(std::byte* to, bool key, const float* from, uint32_t dim, float* scale) {
  float least = from[0], most = from[0];
  for (uint32_t d = 0; d < dim; ++d) least = from[d] >= least ? least : from[d], most = from[d] <= most ? most : from[d];
  const Grid grid = grid_of(isnan(largest(from, dim)) ? NAN : least, most);
  uint8_t codes[largest_head] = {};
  for (uint32_t d = 0; d < dim && isfinite(grid.scale); ++d) codes[d] = static_cast<uint8_t>(fminf(fmaxf(nearbyintf((from[d] - grid.offset) * grid.inverse), 0), 15));
  for (uint32_t i = 0; i < kv_row_elements(dim) / 2; ++i) {
    const uint32_t low = key ? 2 * i : i / 8 * 16 + i % 8, high = low + (key ? 1 : 8);
    to[key ? i * 16 : i] = static_cast<std::byte>(codes[low] | codes[high] << 4);
  }
  *scale = float_from_bits(bits_from_float(grid.scale) | bits_from_float(grid.offset) >> 16);
}

// A key in 4 bits as it was rounded.
static inline void read_key_4(const std::byte* key, uint32_t dim, float word, float* to) {
  const float scale = float_from_bits(bits_from_float(word) & 0xffff0000), offset = float_from_bits(bits_from_float(word) << 16);
  for (uint32_t d = 0; d < dim; ++d) to[d] = scale * static_cast<float>(static_cast<uint32_t>(key[d / 2 * 16]) >> d % 2 * 4 & 15) + offset;
}

// The row's elements are `step` apart.
static inline void store_row(std::byte* to, uint32_t step, const float* from, uint32_t dim, KvKind kind, float* scale) {
  if (kind == KvKind::i4) return store_row_4(to, step > 1, from, dim, scale);
  const float max = largest(from, dim), inverse = max < 1e-30f ? 0 : 127 / max;
  for (uint32_t d = 0; d < kv_row_elements(dim); ++d) {
    const float x = d < dim ? from[d] : 0;
    switch (kind) {
      case KvKind::f32: reinterpret_cast<float*>(to)[d * step] = x; break;
      case KvKind::f16: reinterpret_cast<uint16_t*>(to)[d * step] = half_from_float(x); break;
      case KvKind::i8: reinterpret_cast<int8_t*>(to)[d * step] = code(x * inverse); break;
      case KvKind::i4: break;
    }
  }
  if (kind == KvKind::i8) *scale = max < 1e-30f ? 0 : max / 127;
}

}  // namespace gptq::kernels
