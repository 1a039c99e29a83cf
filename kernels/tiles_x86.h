// SPDX-License-Identifier: Apache-2.0
// Tiles of quantized weights in 256-bit registers: 4-bit lines, and rows as float32.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {

// Half a 4-bit line: its two rows. Of an 8-bit line: the two halves of its row's codes.
struct Nibbles {
  __m256i low, high;
};

GPTQ_INLINE __m256i load_half(const void* line, uint32_t half) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(line) + half);
}

template <Kind kind>
GPTQ_INLINE Nibbles load_nibbles(const uint8_t* tile, uint32_t line, uint32_t half) {
  const __m256i mask = _mm256_set1_epi8(kind == Kind::q2 ? 3 : 15);
  __m256i v;
  if constexpr (kind == Kind::q4 || kind == Kind::q8) {
    v = load_half(tile + 64 * line, half);
  } else {
    v = _mm256_srl_epi16(load_half(tile + 64 * (line % 4), half), _mm_cvtsi32_si128(static_cast<int>(line / 4 * 2)));
  }
  if constexpr (kind == Kind::q3) {
    const __m256i high = _mm256_srl_epi16(load_half(tile + 256 + 64 * (line / 4), half), _mm_cvtsi32_si128(static_cast<int>(line % 4)));
    v = _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi8(0x33)), _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(0x11)), 2));
  }
  return {_mm256_and_si256(v, mask), _mm256_and_si256(_mm256_srli_epi16(v, 4), mask)};
}

// Scales and zeros of 16 rows for the four 16-column pieces of a tile.
struct TileScales {
  float scale[4][16], zero[4][16];
};

GPTQ_INLINE void load_tile_scales(const Matrix& w, uint32_t block, uint32_t tile, TileScales& out) {
  for (uint32_t c = 0; c < 4; ++c) {
    const uint64_t group = uint64_t{block} * n_groups(w) + (tile * 64 + c * 16) / w.group;
    __m256 low, high;
    load_scales(w, group, low, high);
    _mm256_storeu_ps(out.scale[c], low);
    _mm256_storeu_ps(out.scale[c] + 8, high);
    load_zeros(w, group, low, high);
    _mm256_storeu_ps(out.zero[c], low);
    _mm256_storeu_ps(out.zero[c] + 8, high);
  }
}

// The 64 codes of a row, in line order, to scale * (code - zero) in the order of the columns.
GPTQ_INLINE void expand_row(__m256i first, __m256i second, const TileScales& s, uint32_t row, float* out) {
  const __m128i t0 = _mm256_castsi256_si128(first), t1 = _mm256_extracti128_si256(first, 1);
  const __m128i t2 = _mm256_castsi256_si128(second), t3 = _mm256_extracti128_si256(second, 1);
  const __m128i a = _mm_unpacklo_epi32(t0, t1), b = _mm_unpacklo_epi32(t2, t3);
  const __m128i c = _mm_unpackhi_epi32(t0, t1), d = _mm_unpackhi_epi32(t2, t3);
  const __m128i pieces[4] = {_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(c, d), _mm_unpackhi_epi64(c, d)};
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) {
    const __m256 scale = _mm256_set1_ps(s.scale[p][row]), zero = _mm256_set1_ps(s.zero[p][row]);
    const __m256 low = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pieces[p]));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(pieces[p], 8)));
    _mm256_storeu_ps(out + p * 16, _mm256_mul_ps(scale, _mm256_sub_ps(low, zero)));
    _mm256_storeu_ps(out + p * 16 + 8, _mm256_mul_ps(scale, _mm256_sub_ps(high, zero)));
  }
}

// All 16 rows of a tile, out[row * stride + column].
template <Kind kind>
GPTQ_INLINE void expand_tile(const uint8_t* codes, const TileScales& s, float* out, uint32_t stride) {
  if constexpr (kind == Kind::q8) {
    for (uint32_t row = 0; row < 16; ++row)
      expand_row(load_half(codes + 64 * row, 0), load_half(codes + 64 * row, 1), s, row, out + row * stride);
  } else {
    for (uint32_t line = 0; line < 8; ++line) {
      const Nibbles first = load_nibbles<kind>(codes, line, 0), second = load_nibbles<kind>(codes, line, 1);
      expand_row(first.low, second.low, s, line, out + line * stride);
      expand_row(first.high, second.high, s, line + 8, out + (line + 8) * stride);
    }
  }
}

}  // namespace gptq::kernels
