// SPDX-License-Identifier: Apache-2.0
// Tiles of quantized weights in NEON registers.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {

// Scales and zeros of the 16 rows of a group.
GPTQ_INLINE void load_group(const Matrix& w, uint64_t group, float* scale, float* zero) {
  for (uint32_t r = 0; r < 16; r += lanes) {
    const uint64_t at = group * 16 + r;
    store(scale + r, w.scales_f32 ? load_as<Kind::f32>(w.scales, at) : load_as<Kind::f16>(w.scales, at));
    store(zero + r, w.zeros ? load_bytes(w.zeros + at) : all(static_cast<float>(1 << (bits_of(w.kind) - 1))));
  }
}

// Half a line.
using Half = uint8x16x2_t;

GPTQ_INLINE Half load_half(const void* line, uint32_t half) { return vld1q_u8_x2(static_cast<const uint8_t*>(line) + 32 * half); }

// Half a 4-bit line: its two rows. Of an 8-bit line: the two halves of its row's codes.
struct Nibbles {
  Half low, high;
};

template <Kind kind>
GPTQ_INLINE Nibbles load_nibbles(const uint8_t* tile, uint32_t line, uint32_t half) {
  const uint8x16_t mask = vdupq_n_u8(kind == Kind::q2 ? 3 : 15);
  Nibbles nibbles;
  Half v, high{};
  if constexpr (kind == Kind::q4 || kind == Kind::q8) v = load_half(tile + 64 * line, half);
  else v = load_half(tile + 64 * (line % 4), half);
  if constexpr (kind == Kind::q3) high = load_half(tile + 256 + 64 * (line / 4), half);
  const int8x16_t down = vdupq_n_s8(static_cast<int8_t>(-(line / 4 * 2))), high_down = vdupq_n_s8(static_cast<int8_t>(-(line % 4)));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    uint8x16_t codes = v.val[i];
    if constexpr (kind == Kind::q2 || kind == Kind::q3) codes = vshlq_u8(codes, down);
    if constexpr (kind == Kind::q3) {
      const uint8x16_t third = vandq_u8(vshlq_u8(high.val[i], high_down), vdupq_n_u8(0x11));
      codes = vorrq_u8(vandq_u8(codes, vdupq_n_u8(0x33)), vshlq_n_u8(third, 2));
    }
    nibbles.low.val[i] = vandq_u8(codes, mask);
    nibbles.high.val[i] = vandq_u8(vshrq_n_u8(codes, 4), mask);
  }
  return nibbles;
}

// Scales of the rows of a tile for its four 16-column pieces, which are the lanes of what a line's codes are multiplied to.
struct RowScales {
  float scale[16][4], zero[16][4];
};

GPTQ_INLINE void load_row_scales(const Matrix& w, uint32_t block, uint32_t tile, RowScales& out) {
  for (uint32_t c = 0; c < 4; ++c) {
    const uint64_t group = uint64_t{block} * n_groups(w) + (tile * 64 + c * 16) / w.group;
    float scale[16], zero[16];
    load_group(w, group, scale, zero);
    for (uint32_t row = 0; row < 16; ++row) {
      out.scale[row][c] = scale[row];
      out.zero[row][c] = zero[row];
    }
  }
}

}  // namespace gptq::kernels
