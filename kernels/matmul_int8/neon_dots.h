// SPDX-License-Identifier: Apache-2.0
// Tiles times tokens with dot products, where the file is compiled for them, or with multiplications and additions in pairs.
#pragma once
#include "kernels/tiles_neon.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t tokens_together = 16;  // so that their sums stay in L1

struct Sums {
  float rows[16][tokens_together][4];  // a lane for each piece of the tiles
};

template <Kind kind>
GPTQ_INLINE float total(const Sums& sums, uint32_t row, uint32_t token) {
  return sum_of(load(sums.rows[row][token]));
}

// Sums of four products in a row.
GPTQ_INLINE int32x4_t add_dots(int32x4_t sums, uint8x16_t codes, int8x16_t q) {
  const int8x16_t w = vreinterpretq_s8_u8(codes);
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sums, w, q);
#else
  return vpadalq_s16(sums, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(q)), vmull_high_s8(w, q)));
#endif
}

// One token's part of a tile: q, and the multipliers of its blocks.
struct Columns {
  int8x16_t q[4];
  int32x4_t multiplier;
};

GPTQ_INLINE Columns load_columns(const Record& x) {
  const int16x4_t multiplier = vld2_s16(&x.multiplier[0][0]).val[0];
  return {{vld1q_s8(x.q), vld1q_s8(x.q + 16), vld1q_s8(x.q + 32), vld1q_s8(x.q + 48)}, vmovl_s16(multiplier)};
}

// A row of a tile: the sums of codes * multiplier * q, which fit int32: 16 * 15 * 127 * 32767 < 2^31.
GPTQ_INLINE float32x4_t multiply_row(const Half& first, const Half& second, const Columns& x) {
  const int32x4_t half = add_dots(add_dots(vdupq_n_s32(0), first.val[0], x.q[0]), first.val[1], x.q[1]);
  return vcvtq_f32_s32(vmulq_s32(add_dots(add_dots(half, second.val[0], x.q[2]), second.val[1], x.q[3]), x.multiplier));
}

GPTQ_INLINE void add_to(float* sums, float32x4_t products, float32x4_t scale) { store(sums, fma(products, scale, load(sums))); }

// All 16 rows of a tile for n tokens.
template <Kind kind>
GPTQ_INLINE void add_tile(const uint8_t* codes, const RowScales& scales, const Record* x, uint32_t n, Sums& sums) {
  constexpr uint32_t lines = kind == Kind::q8 ? 16 : 8;
  for (uint32_t line = 0; line < lines; ++line) {
    prefetch_part<tile_bytes(kind) / lines>(codes + 4096, line);
    const Nibbles first = load_nibbles<kind>(codes, line, 0), second = load_nibbles<kind>(codes, line, 1);
    const uint32_t other = kind == Kind::q8 ? line : line + 8;
    const float32x4_t low = load(scales.scale[line]), high = multiply(load(scales.scale[other]), all(kind == Kind::q8 ? 16 : 1));
    for (uint32_t t = 0; t < n; ++t) {
      const Columns columns = load_columns(x[t]);
      add_to(sums.rows[line][t], multiply_row(first.low, second.low, columns), low);
      add_to(sums.rows[other][t], multiply_row(first.high, second.high, columns), high);
    }
  }
}

}  // namespace
}  // namespace gptq::kernels
