// SPDX-License-Identifier: Apache-2.0
// matmul_int8 with vpdpbusd, a line of 64 bytes at a time: codes are unsigned, activations signed, sums int32.
#include "kernels/matmul_int8/x86.h"

namespace gptq::kernels {
namespace {

// Two rows of codes.
struct RowPair {
  __m512i low, high;
};

GPTQ_INLINE __m512i load_line(const void* line) { return _mm512_loadu_si512(line); }

// Rows `line` and line + 8 of a tile.
template <Kind kind>
GPTQ_INLINE RowPair load_rows(const uint8_t* tile, uint32_t line) {
  const __m512i mask = _mm512_set1_epi8(kind == Kind::q2 ? 3 : 15);
  if constexpr (kind == Kind::q8) return {load_line(tile + 64 * line), load_line(tile + 64 * (line + 8))};
  __m512i v;
  if constexpr (kind == Kind::q4) {
    v = load_line(tile + 64 * line);
  } else {
    v = _mm512_srl_epi16(load_line(tile + 64 * (line % 4)), _mm_cvtsi32_si128(static_cast<int>(line / 4 * 2)));
  }
  if constexpr (kind == Kind::q3) {
    const __m512i high = _mm512_srl_epi16(load_line(tile + 256 + 64 * (line / 4)), _mm_cvtsi32_si128(static_cast<int>(line % 4)));
    v = _mm512_or_si512(_mm512_and_si512(v, _mm512_set1_epi8(0x33)), _mm512_slli_epi16(_mm512_and_si512(high, _mm512_set1_epi8(0x11)), 2));
  }
  return {_mm512_and_si512(v, mask), _mm512_and_si512(_mm512_srli_epi16(v, 4), mask)};
}

// The upper half onto the lower.
GPTQ_INLINE __m256 fold(__m512 v) {
  const __m256d upper = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1);
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(upper));
}

struct Avx512Vnni {
  // One step of all 16 rows.
  template <Kind kind, Step step, uint32_t n_tiles, int T>
  GPTQ_INLINE void add_step(const Chunk& chunk, uint32_t first_tile, const Tokens<T>& x, __m512 (&acc)[16][T]) {
    const uint8_t* tile = chunk.codes + first_tile * tile_bytes(kind);
    const uint32_t s = first_tile / tiles_of(step);
#pragma GCC unroll 1
    for (uint32_t line = 0; line < 8; ++line) {
      prefetch_part<n_tiles * tile_bytes(kind) / 8>(tile + chunk.ahead, line);
      __m512 scaled[2][T];
#pragma GCC unroll 2
      for (uint32_t i = 0; i < n_tiles; ++i) {
        const RowPair w = load_rows<kind>(tile + i * tile_bytes(kind), line);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const __m512i q = load_line(x.q[t] + (first_tile + i) * 64), zero = _mm512_setzero_si512();
          const __m512 scale = _mm512_broadcast_f32x4(_mm_loadu_ps(x.scale[t] + 4 * (first_tile + i)));
          const __m512 low = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, w.low, q));
          const __m512 high = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(zero, w.high, q));
          scaled[0][t] = i ? _mm512_fmadd_ps(low, scale, scaled[0][t]) : _mm512_mul_ps(low, scale);
          scaled[1][t] = i ? _mm512_fmadd_ps(high, scale, scaled[1][t]) : _mm512_mul_ps(high, scale);
        }
      }
#pragma GCC unroll 2
      for (uint32_t r = 0; r < 2; ++r) {
        const uint32_t row = line + 8 * r;
        const __m512 scale = step == Step::pieces ? _mm512_broadcast_f32x4(_mm_loadu_ps(chunk.scale + s * 64 + row * 4))
                                                  : _mm512_set1_ps(chunk.scale[s * 16 + row]);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) acc[row][t] = _mm512_fmadd_ps(scaled[r][t], scale, acc[row][t]);
      }
    }
  }

  template <Kind kind, Step step, int T>
  static __attribute__((noinline)) void dot(const Chunk& chunk, const Tokens<T>& x, float (&part)[T][16]) {
    __m512 acc[16][T];
    for (auto& row : acc)
      for (__m512& sum : row) sum = _mm512_setzero_ps();
    uint32_t tile = 0;
    for (; tile + tiles_of(step) <= chunk.tiles; tile += tiles_of(step)) add_step<kind, step, tiles_of(step), T>(chunk, tile, x, acc);
    if (tile < chunk.tiles) add_step<kind, step, 1, T>(chunk, tile, x, acc);
    for (int t = 0; t < T; ++t)
      for (int r = 0; r < 16; r += 4)
        _mm_storeu_ps(part[t] + r, sum_lanes(fold(acc[r][t]), fold(acc[r + 1][t]), fold(acc[r + 2][t]), fold(acc[r + 3][t])));
  }
};

}  // namespace

void matmul_int8_avx512vnni(const MatmulArgs& a) { matmul_int8<Avx512Vnni>(a); }

}  // namespace gptq::kernels
