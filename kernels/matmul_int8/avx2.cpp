// SPDX-License-Identifier: Apache-2.0
// matmul_int8 without VNNI: vpmaddubsw multiplies 4-bit codes with int8, eight such products still fit int16, and vpmaddwd brings in
// the blocks' multipliers: 8 * 15 * 127 * 32767 * 2 < 2^31.
#include "kernels/matmul_int8/x86.h"

namespace gptq::kernels {
namespace {

struct Int8Avx2 {
  static constexpr uint32_t tokens = 32;  // so that the sums stay in L1
  static constexpr uint32_t lines = 2;    // together: eight registers of codes

  struct Lines {
    __m256i codes[2][4];
  };

  // 16 bytes, in both halves of a vector.
  GPTQ_INLINE __m256i load_twice(const void* data) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(data))); }

  // Low nibbles in the lower half, high ones in the upper, from bit `shift` of each.
  GPTQ_INLINE __m256i nibbles(const uint8_t* data, uint32_t shift, char mask) {
    const __m256i counts = _mm256_add_epi64(_mm256_setr_epi64x(0, 0, 4, 4), _mm256_set1_epi64x(shift));
    return _mm256_and_si256(_mm256_srlv_epi64(load_twice(data), counts), _mm256_set1_epi8(mask));
  }

  template <Kind kind>
  GPTQ_INLINE __m256i load_codes(const uint8_t* tile, uint32_t line) {
    if constexpr (kind == Kind::q4 || kind == Kind::q8) return nibbles(tile + 64 * line, 0, 15);
    const __m256i low = nibbles(tile + 64 * (line % 4), line / 4 * 2, 3);
    if constexpr (kind == Kind::q2) return low;
    return _mm256_or_si256(low, _mm256_slli_epi16(nibbles(tile + 256 + 64 * (line / 4), line % 4, 1), 2));
  }

  template <Kind kind>
  GPTQ_INLINE Lines load_lines(const uint8_t* tile, uint32_t line) {
    Lines w;
#pragma GCC unroll 2
    for (uint32_t i = 0; i < 2; ++i)
#pragma GCC unroll 4
      for (uint32_t t = 0; t < 4; ++t) w.codes[i][t] = load_codes<kind>(tile + 16 * t, line + i);
    return w;
  }

  GPTQ_INLINE void add_products(__m256i dots, __m256i multipliers, const float* scale, float* sum) {
    const __m256 products = _mm256_cvtepi32_ps(_mm256_madd_epi16(dots, multipliers));
    _mm256_store_ps(sum, _mm256_fmadd_ps(products, _mm256_load_ps(scale), _mm256_load_ps(sum)));
  }

  GPTQ_INLINE void add_token(const Lines& w, const float (*scale)[8], const Record& x, float* sum) {
    __m256i first, second;
#pragma GCC unroll 4
    for (uint32_t t = 0; t < 4; ++t) {
      const __m256i q = load_twice(x.q + 16 * t);
      first = t ? _mm256_add_epi16(first, _mm256_maddubs_epi16(w.codes[0][t], q)) : _mm256_maddubs_epi16(w.codes[0][t], q);
      second = t ? _mm256_add_epi16(second, _mm256_maddubs_epi16(w.codes[1][t], q)) : _mm256_maddubs_epi16(w.codes[1][t], q);
      asm("" : "+x"(first), "+x"(second));  // in this order: a tree of sums would push codes out of the registers
    }
    const __m256i multipliers = load_twice(x.multiplier);
    add_products(first, multipliers, scale[0], sum);
    add_products(second, multipliers, scale[1], sum + 8);
  }
};

}  // namespace

void matmul_int8_avx2(const MatmulArgs& a) { matmul_int8<Int8Avx2>(a); }

}  // namespace gptq::kernels
