// SPDX-License-Identifier: Apache-2.0
// matmul_int8 without VNNI: vpmaddubsw multiplies 4-bit codes with int8, and the sum of four such products still fits int16,
// so the two halves of a line are added there. 8-bit codes are two 4-bit halves.
#include "kernels/matmul_int8/x86.h"
#include "kernels/tiles_x86.h"

namespace gptq::kernels {
namespace {

struct Avx2 {
  // Codes times activations of one line of a tile, in int32: every 4-byte lane belongs to one 16-column piece, piece lane % 4.
  template <Kind kind, int T>
  GPTQ_INLINE void multiply_line(const uint8_t* tile, uint32_t line, const Tokens<T>& x, uint32_t column, __m256i (&sums)[2][T]) {
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; ++half) {
      const Nibbles w = load_nibbles<kind>(tile, line, half);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const __m256i q = load_half(x.q[t] + column, half);
        const __m256i low = _mm256_maddubs_epi16(w.low, q), high = _mm256_maddubs_epi16(w.high, q);
        sums[0][t] = half ? _mm256_add_epi16(sums[0][t], low) : low;
        sums[1][t] = half ? _mm256_add_epi16(sums[1][t], high) : high;
        asm volatile("" : "+x"(sums[0][t]), "+x"(sums[1][t]));  // or gcc makes all products first, and spills them
      }
    }
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      sums[0][t] = _mm256_madd_epi16(sums[0][t], ones);
      sums[1][t] = _mm256_madd_epi16(sums[1][t], ones);
      if constexpr (kind == Kind::q8) sums[0][t] = _mm256_add_epi32(sums[0][t], _mm256_slli_epi32(sums[1][t], 4));
    }
  }

  // One step of all 16 rows.
  template <Kind kind, Step step, uint32_t n_tiles, int T>
  GPTQ_INLINE void add_step(const Chunk& chunk, uint32_t first_tile, const Tokens<T>& x, __m256 (&acc)[16][T]) {
    constexpr uint32_t lines = kind == Kind::q8 ? 16 : 8, rows = 16 / lines;
    const uint8_t* tile = chunk.codes + first_tile * tile_bytes(kind);
    const uint32_t s = first_tile / tiles_of(step);
#pragma GCC unroll 1
    for (uint32_t line = 0; line < lines; ++line) {
      prefetch_part<n_tiles * tile_bytes(kind) / lines>(tile + chunk.ahead, line);
      __m256 scaled[2][T];
#pragma GCC unroll 2
      for (uint32_t i = 0; i < n_tiles; ++i) {
        __m256i sums[2][T];
        multiply_line<kind, T>(tile + i * tile_bytes(kind), line, x, (first_tile + i) * 64, sums);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const __m256 scale = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(x.scale[t] + 4 * (first_tile + i)));
#pragma GCC unroll 2
          for (uint32_t r = 0; r < rows; ++r) {
            const __m256 sum = _mm256_cvtepi32_ps(sums[r][t]);
            scaled[r][t] = i ? _mm256_fmadd_ps(sum, scale, scaled[r][t]) : _mm256_mul_ps(sum, scale);
          }
        }
      }
#pragma GCC unroll 2
      for (uint32_t r = 0; r < rows; ++r) {
        const uint32_t row = line + 8 * r;
        const __m256 scale = step == Step::pieces ? _mm256_broadcast_ps(reinterpret_cast<const __m128*>(chunk.scale + s * 64 + row * 4))
                                                  : _mm256_broadcast_ss(chunk.scale + s * 16 + row);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) acc[row][t] = _mm256_fmadd_ps(scaled[r][t], scale, acc[row][t]);
      }
    }
  }

  template <Kind kind, Step step, int T>
  static __attribute__((noinline)) void dot(const Chunk& chunk, const Tokens<T>& x, float (&part)[T][16]) {
    __m256 acc[16][T];
    for (auto& row : acc)
      for (__m256& sum : row) sum = _mm256_setzero_ps();
    uint32_t tile = 0;
    for (; tile + tiles_of(step) <= chunk.tiles; tile += tiles_of(step)) add_step<kind, step, tiles_of(step), T>(chunk, tile, x, acc);
    if (tile < chunk.tiles) add_step<kind, step, 1, T>(chunk, tile, x, acc);
    for (int t = 0; t < T; ++t)
      for (int r = 0; r < 16; r += 4) _mm_storeu_ps(part[t] + r, sum_lanes(acc[r][t], acc[r + 1][t], acc[r + 2][t], acc[r + 3][t]));
  }
};

}  // namespace

void matmul_int8_avx2(const MatmulArgs& a) { matmul_int8<Avx2>(a); }

}  // namespace gptq::kernels
