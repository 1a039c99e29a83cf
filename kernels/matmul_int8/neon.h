// SPDX-License-Identifier: Apache-2.0
// matmul_int8 with NEON, and with dot products where the file is compiled for them. The codes of two rows stay in registers while the
// tokens pass by; every row and token has a vector of sums, a lane for each 16-column piece of the tiles, so that groups of any size go
// the same way. Zero points come off through the sums of the activations. 8-bit codes are two 4-bit halves.
#pragma once
#include "kernels/tiles_neon.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t tokens_together = 16;  // so that their sums stay in L1

struct Sums {
  float rows[16][tokens_together][4];
};

// Sums of four products in a row.
GPTQ_INLINE int32x4_t add_dots(int32x4_t sums, uint8x16_t codes, int8x16_t q) {
  const int8x16_t w = vreinterpretq_s8_u8(codes);
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sums, w, q);
#else
  return vpadalq_s16(sums, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(q)), vmull_high_s8(w, q)));
#endif
}

// One token's part of a tile: its two half lines of q, and the multipliers of blocks 0..3 and 4..7.
struct Columns {
  int8x16_t q[2][2];
  int32x4_t multiplier[2];
};

GPTQ_INLINE Columns load_columns(const Record& x, uint32_t tile) {
  const int8_t* q = x.q + 64 * tile;
  const int16x8_t multiplier = vld2q_s16(reinterpret_cast<const int16_t*>(x.multiplier)).val[0];
  return {{{vld1q_s8(q), vld1q_s8(q + 16)}, {vld1q_s8(q + 32), vld1q_s8(q + 48)}}, {vmovl_s16(vget_low_s16(multiplier)), vmovl_high_s16(multiplier)}};
}

// A row of a tile: the sums of codes * multiplier * q, which fit int32: 16 * 15 * 127 * 32767 < 2^31.
GPTQ_INLINE float32x4_t multiply_row(const Half& first, const Half& second, const Columns& x) {
  int32x4_t sums[2];
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) sums[j] = add_dots(add_dots(vdupq_n_s32(0), first.val[j], x.q[0][j]), second.val[j], x.q[1][j]);
  return vcvtq_f32_s32(vmlaq_s32(vmulq_s32(sums[0], x.multiplier[0]), sums[1], x.multiplier[1]));
}

GPTQ_INLINE void add_to(float* sums, float32x4_t products, float32x4_t scale) { store(sums, fma(products, scale, load(sums))); }

// All 16 rows of a tile for n tokens.
template <Kind kind>
GPTQ_INLINE void add_tile(const uint8_t* codes, const RowScales& scales, const Record* x, uint32_t tile, uint32_t n, Sums& sums) {
  constexpr uint32_t lines = kind == Kind::q8 ? 16 : 8;
  for (uint32_t line = 0; line < lines; ++line) {
    prefetch_part<tile_bytes(kind) / lines>(codes + 4096, line);
    const Nibbles first = load_nibbles<kind>(codes, line, 0), second = load_nibbles<kind>(codes, line, 1);
    const uint32_t other = kind == Kind::q8 ? line : line + 8;
    const float32x4_t low = load(scales.scale[line]), high = multiply(load(scales.scale[other]), all(kind == Kind::q8 ? 16 : 1));
    for (uint32_t t = 0; t < n; ++t) {
      const Columns columns = load_columns(x[t], tile);
      add_to(sums.rows[line][t], multiply_row(first.low, second.low, columns), low);
      add_to(sums.rows[other][t], multiply_row(first.high, second.high, columns), high);
    }
  }
}

// What the zero points add to one token.
void sum_zeros(const MatmulArgs& a, uint32_t block, uint32_t token, float* zeros) {
  memset(zeros, 0, 16 * sizeof *zeros);
  for (uint32_t begin = 0; begin < a.x8.k_padded; begin += a.x8.sum_block) {
    float scale[16], zero[16];
    load_group(*a.w, uint64_t{block} * n_groups(*a.w) + begin / a.w->group, scale, zero);
    const Floats sum = all(a.x8.sum[uint64_t{begin} / a.x8.sum_block * a.x8.rows + token]);
    for (uint32_t r = 0; r < 16; r += lanes) store(zeros + r, fma(sum, multiply(load(scale + r), load(zero + r)), load(zeros + r)));
  }
}

template <Kind kind>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t token, uint32_t n) {
  const uint32_t n_tiles = a.w->k_padded / 64, rows = a.w->n - block * 16 < 16 ? a.w->n - block * 16 : 16;
  const auto* codes = static_cast<const uint8_t*>(a.w->codes) + uint64_t{block} * n_tiles * tile_bytes(kind);
  Sums sums = {};
  RowScales scales;
  for (uint32_t tile = 0; tile < n_tiles; ++tile, codes += tile_bytes(kind)) {
    const bool same_group = tile && a.w->group % 64 == 0 && tile * 64 % a.w->group;
    if (!same_group) load_row_scales(*a.w, block, tile, scales);
    add_tile<kind>(codes, scales, a.x8.records + uint64_t{tile / 2} * a.x8.rows + token, tile % 2, n, sums);
  }
  for (uint32_t t = 0; t < n; ++t) {
    float zeros[16];
    sum_zeros(a, block, token + t, zeros);
    float* y = a.y + uint64_t{token + t} * a.y_stride + block * 16;
    for (uint32_t r = 0; r < rows; ++r) {
      const float base = (a.accumulate ? y[r] : 0) + (a.bias ? a.bias[block * 16 + r] : 0);
      y[r] = (sum_of(load(sums.rows[r][t])) - zeros[r]) * a.x8.scale[token + t] + base;
    }
  }
}

template <Kind kind>
void multiply_all(const MatmulArgs& a) {
  for (uint32_t token = 0; token < a.m; token += tokens_together)
    for (uint32_t block = a.first_block; block < a.last_block; ++block)
      multiply_block<kind>(a, block, token, a.m - token < tokens_together ? a.m - token : tokens_together);
}

GPTQ_INLINE void multiply_any(const MatmulArgs& a) {
  switch (a.w->kind) {
    case Kind::q2: return multiply_all<Kind::q2>(a);
    case Kind::q3: return multiply_all<Kind::q3>(a);
    case Kind::q4: return multiply_all<Kind::q4>(a);
    case Kind::q8: return multiply_all<Kind::q8>(a);
    default: return;
  }
}

}  // namespace
}  // namespace gptq::kernels
