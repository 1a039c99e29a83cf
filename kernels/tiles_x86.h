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

// The scales of a tile as unpack_tile wants them: by row and piece. offset is scale * zero; float16 scales leave it and scale * code exact.
struct RowScales {
  alignas(32) float scale[16][4];
  alignas(32) float offset[16][4];
};

GPTQ_INLINE void load_row_scales(const Matrix& w, uint32_t block, uint32_t tile, RowScales& out) {
  __m256 scale[2][4], offset[2][4];
  for (uint32_t c = 0; c < 4; ++c) {
    const uint64_t group = uint64_t{block} * n_groups(w) + (tile * 64 + c * 16) / w.group;
    load_scales(w, group, scale[0][c], scale[1][c]);
    load_zeros(w, group, offset[0][c], offset[1][c]);
    for (int half = 0; half < 2; ++half) offset[half][c] = _mm256_mul_ps(offset[half][c], scale[half][c]);
  }
  for (int half = 0; half < 2; ++half) {
    store_transposed(scale[half], out.scale[half * 8]);
    store_transposed(offset[half], out.offset[half * 8]);
  }
}

// Scales of one row, for every lane that a line's codes go to.
struct LaneScales {
  __m256 scale, offset;
};

GPTQ_INLINE LaneScales lane_scales(const RowScales& s, uint32_t row) {
  return {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(s.scale[row])), _mm256_broadcast_ps(reinterpret_cast<const __m128*>(s.offset[row]))};
}

// Byte i of the lanes of half a line to scale * code - offset: the columns at places 16i and on, of the second half 16i + 8 and on.
GPTQ_INLINE __m256 unpack_bytes(__m256i codes, const LaneScales& s, int i) {
  const __m256i byte = _mm256_add_epi32(_mm256_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12), _mm256_set1_epi32(static_cast<int>(0x80808000u) + i));
  return _mm256_fmsub_ps(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(codes, byte)), s.scale, s.offset);
}

GPTQ_INLINE void unpack_half(__m256i codes, const LaneScales& s, uint32_t half, float* out) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + i * 16 + half * 8, unpack_bytes(codes, s, i));
}

// All 16 rows of a tile, out[row * stride + float_place].
template <Kind kind>
GPTQ_INLINE void unpack_tile(const uint8_t* codes, const RowScales& s, float* out, uint32_t stride) {
#pragma GCC unroll 1
  for (uint32_t line = 0; line < (kind == Kind::q8 ? 16 : 8); ++line)
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; ++half) {
      if constexpr (kind == Kind::q8) {
        unpack_half(load_half(codes + 64 * line, half), lane_scales(s, line), half, out + line * stride);
      } else {
        const Nibbles rows = load_nibbles<kind>(codes, line, half);
        unpack_half(rows.low, lane_scales(s, line), half, out + line * stride);
        unpack_half(rows.high, lane_scales(s, line + 8), half, out + (line + 8) * stride);
      }
    }
}

}  // namespace gptq::kernels
