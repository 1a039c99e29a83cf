// SPDX-License-Identifier: Apache-2.0
// matmul_int8 without VNNI: vpmaddubsw multiplies 4-bit codes with int8, and eight such products still fit int16, so a block of 128
// columns is added up in int16. 8-bit codes are two 4-bit halves.
#include "kernels/matmul_int8/x86.h"

namespace gptq::kernels {
namespace {

// The two rows of a 4-bit line, or the two halves of an 8-bit row's codes.
struct Nibbles {
  __m256i low, high;
};

GPTQ_INLINE __m256i load_half(const uint8_t* line, uint32_t half) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line) + half);
}

template <Kind kind>
GPTQ_INLINE Nibbles load_line(const uint8_t* tile, uint32_t line, uint32_t half) {
  const __m256i mask = _mm256_set1_epi8(kind == Kind::q2 ? 3 : 15);
  if constexpr (kind == Kind::q4 || kind == Kind::q8) {
    const __m256i v = load_half(tile + 64 * line, half);
    return {_mm256_and_si256(v, mask), _mm256_and_si256(_mm256_srli_epi16(v, 4), mask)};
  }
  __m256i v = _mm256_srl_epi16(load_half(tile + 64 * (line % 4), half), _mm_cvtsi32_si128(static_cast<int>(line / 4 * 2)));
  if constexpr (kind == Kind::q3) {
    const __m256i high = _mm256_srl_epi16(load_half(tile + 256 + 64 * (line / 4), half), _mm_cvtsi32_si128(static_cast<int>(line % 4)));
    v = _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi8(0x33)), _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(0x11)), 2));
  }
  return {_mm256_and_si256(v, mask), _mm256_and_si256(_mm256_srli_epi16(v, 4), mask)};
}

struct Avx2 {
  template <Kind kind>
  static constexpr uint32_t lines = kind == Kind::q8 ? 16 : 8;

  // Codes times activations of n_tiles tiles, in int32.
  template <Kind kind, uint32_t n_tiles, int T>
  GPTQ_INLINE void multiply_tiles(const uint8_t* tile, uint32_t line, const Tokens<T>& x, uint32_t first_tile, __m256i (&sums)[2][T]) {
#pragma GCC unroll 4
    for (uint32_t half = 0; half < 2 * n_tiles; ++half) {
      const Nibbles w = load_line<kind>(tile + half / 2 * tile_bytes(kind), line, half % 2);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const __m256i q = load_half(reinterpret_cast<const uint8_t*>(x.q[t]) + first_tile * 64, half);
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

  template <Kind kind, Step step, uint32_t n_tiles, int T>
  GPTQ_INLINE void add_step(const Chunk& chunk, uint32_t line, uint32_t first_tile, const Tokens<T>& x, __m256 (&acc)[2][T]) {
    constexpr int rows = kind == Kind::q8 ? 1 : 2;
    const uint8_t* tile = chunk.codes + first_tile * tile_bytes(kind);
    for (uint32_t i = 0; i < n_tiles; ++i) {
      const uint32_t at = i * tile_bytes(kind) + (kind == Kind::q2 || kind == Kind::q3 ? line % 4 : line) * 64;
      _mm_prefetch(reinterpret_cast<const char*>(tile + at + chunk.ahead), _MM_HINT_T0);
    }
    __m256i sums[2][T];
    multiply_tiles<kind, n_tiles, T>(tile, line, x, first_tile, sums);
    const uint32_t s = first_tile / tiles_of(step);
#pragma GCC unroll 2
    for (int r = 0; r < rows; ++r) {
      const uint32_t row = line + 8 * static_cast<uint32_t>(r);
      const __m256 scale = step == Step::pieces ? _mm256_broadcast_ps(reinterpret_cast<const __m128*>(chunk.scale + s * 64 + row * 4))
                                                : _mm256_broadcast_ss(chunk.scale + s * 16 + row);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const __m256 both = _mm256_mul_ps(scale, _mm256_broadcast_ss(x.scale[t] + s));
        acc[r][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][t]), both, acc[r][t]);
      }
    }
  }

  template <Kind kind, Step step, int T>
  static __attribute__((noinline)) void dot(const Chunk& chunk, uint32_t line, const Tokens<T>& x, float (&part)[T][16]) {
    constexpr int rows = kind == Kind::q8 ? 1 : 2;
    __m256 acc[2][T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    uint32_t tile = 0;
    for (; tile + tiles_of(step) <= chunk.tiles; tile += tiles_of(step)) add_step<kind, step, tiles_of(step), T>(chunk, line, tile, x, acc);
    if (tile < chunk.tiles) add_step<kind, step, 1, T>(chunk, line, tile, x, acc);
#pragma GCC unroll 2
    for (int r = 0; r < rows; ++r) {
      float sums[4];
      _mm_storeu_ps(sums, sum_lanes(acc[r][0], acc[r][1 % T], acc[r][2 % T], acc[r][3 % T]));
      for (int t = 0; t < T; ++t) part[t][line + 8 * static_cast<uint32_t>(r)] = sums[t];
    }
  }
};

}  // namespace

void matmul_int8_avx2(const MatmulArgs& a) { matmul_int8<Avx2>(a); }

}  // namespace gptq::kernels
