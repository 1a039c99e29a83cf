// SPDX-License-Identifier: Apache-2.0
// Tiles times tokens with i8mm: one instruction multiplies two rows with two tokens, eight columns deep.
#pragma once
#include "kernels/tiles_neon.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t tokens_together = 16;  // so that their sums stay in L1

struct Sums {
  float pairs[16][tokens_together / 2][4];  // [line][pair of tokens]: the line's low codes times each, its high codes times each
};

template <Kind kind>
GPTQ_INLINE float total(const Sums& sums, uint32_t row, uint32_t token) {
  if constexpr (kind == Kind::q8) return sums.pairs[row][token / 2][token % 2] + sums.pairs[row][token / 2][2 + token % 2];
  return sums.pairs[row % 8][token / 2][row / 8 * 2 + token % 2];
}

// 64 bytes in line order: a 32-bit lane of each part is of one block of 16 columns.
struct Line {
  int8x16_t part[4];
};

// Eight bytes of every block, of parts 2i and 2i + 1: a's, then b's.
GPTQ_INLINE void pair_blocks(const Line& a, const Line& b, int8x16_t (&blocks)[2][4]) {
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const int32x4x2_t x = vzipq_s32(vreinterpretq_s32_s8(a.part[2 * i]), vreinterpretq_s32_s8(a.part[2 * i + 1]));
    const int32x4x2_t y = vzipq_s32(vreinterpretq_s32_s8(b.part[2 * i]), vreinterpretq_s32_s8(b.part[2 * i + 1]));
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const int64x2_t first = vreinterpretq_s64_s32(x.val[j]), second = vreinterpretq_s64_s32(y.val[j]);
      blocks[i][j * 2] = vreinterpretq_s8_s64(vzip1q_s64(first, second));
      blocks[i][j * 2 + 1] = vreinterpretq_s8_s64(vzip2q_s64(first, second));
    }
  }
}

GPTQ_INLINE Line line_of(const Half& first, const Half& second) {
  return {{vreinterpretq_s8_u8(first.val[0]), vreinterpretq_s8_u8(first.val[1]), vreinterpretq_s8_u8(second.val[0]), vreinterpretq_s8_u8(second.val[1])}};
}

// Two tokens' part of a tile.
struct TokenPair {
  int8x16_t q[2][4];
  int32x4_t multiplier[4];
};

GPTQ_INLINE void load_pair(const Record& a, const Record& b, TokenPair& pair) {
  pair_blocks(line_of(load_half(a.q, 0), load_half(a.q, 1)), line_of(load_half(b.q, 0), load_half(b.q, 1)), pair.q);
  for (int i = 0; i < 4; ++i) {
    const int32_t both[4] = {a.multiplier[i][0], b.multiplier[i][0], a.multiplier[i][0], b.multiplier[i][0]};
    pair.multiplier[i] = vld1q_s32(both);
  }
}

// Two rows times two tokens; sums of codes * multiplier * q fit int32: 16 * 15 * 127 * 32767 < 2^31. scales: by piece, of both rows.
GPTQ_INLINE float32x4_t multiply_pair(const int8x16_t (&codes)[2][4], const TokenPair& x, const float32x4_t (&scales)[4], float32x4_t sums) {
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const int32x4_t dots = vmmlaq_s32(vmmlaq_s32(vdupq_n_s32(0), codes[0][c], x.q[0][c]), codes[1][c], x.q[1][c]);
    sums = fma(vcvtq_f32_s32(vmulq_s32(dots, x.multiplier[c])), scales[c], sums);
  }
  return sums;
}

// All 16 rows of a tile for n tokens; an odd one is its own partner.
template <Kind kind>
GPTQ_INLINE void add_tile(const uint8_t* codes, const RowScales& scales, const Record* x, uint32_t n, Sums& sums) {
  constexpr uint32_t lines = kind == Kind::q8 ? 16 : 8;
  TokenPair pairs[tokens_together / 2];
  for (uint32_t t = 0; t < n; t += 2) load_pair(x[t], x[t + 1 < n ? t + 1 : t], pairs[t / 2]);
  for (uint32_t line = 0; line < lines; ++line) {
    prefetch_part<tile_bytes(kind) / lines>(codes + 4096, line);
    const Nibbles first = load_nibbles<kind>(codes, line, 0), second = load_nibbles<kind>(codes, line, 1);
    int8x16_t blocks[2][4];
    pair_blocks(line_of(first.low, second.low), line_of(first.high, second.high), blocks);
    const uint32_t other = kind == Kind::q8 ? line : line + 8;
    float32x4_t scale[4];
    for (uint32_t c = 0; c < 4; ++c)
      scale[c] = vcombine_f32(vdup_n_f32(scales.scale[line][c]), vdup_n_f32(scales.scale[other][c] * (kind == Kind::q8 ? 16 : 1)));
    for (uint32_t p = 0; p < (n + 1) / 2; ++p) store(sums.pairs[line][p], multiply_pair(blocks, pairs[p], scale, load(sums.pairs[line][p])));
  }
}

}  // namespace
}  // namespace gptq::kernels
