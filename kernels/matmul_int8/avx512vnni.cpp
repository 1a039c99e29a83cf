// SPDX-License-Identifier: Apache-2.0
// matmul_int8 with vpdpbusd: codes are unsigned, activations signed. The sums of a tile's products fit int16 and can be multiplied in one
// instruction.
#include "kernels/matmul_int8/x86.h"

namespace gptq::kernels {
namespace {

struct Int8Avx512 {
  static constexpr uint32_t tokens = 32;  // so that the sums stay in L1
  static constexpr uint32_t lines = 4;    // together: two to a vector, eight registers of codes

  struct Lines {
    __m512i codes[2][4];
  };

  // 16 bytes, four times.
  GPTQ_INLINE __m512i load_to_all(const void* data) { return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(data))); }

  // 16 bytes of two lines, twice each: low nibbles, then high ones, from bit `shift` of each line's on.
  GPTQ_INLINE __m512i nibbles(const uint8_t* first, uint32_t first_shift, const uint8_t* second, uint32_t second_shift, char mask) {
    const __m512i both = _mm512_mask_broadcast_i32x4(load_to_all(first), 0xff00, _mm_loadu_si128(reinterpret_cast<const __m128i*>(second)));
    const int64_t a = first_shift, b = second_shift;
    return _mm512_and_si512(_mm512_srlv_epi64(both, _mm512_setr_epi64(a, a, a + 4, a + 4, b, b, b + 4, b + 4)), _mm512_set1_epi8(mask));
  }

  // Lines `line` and line + 1.
  template <Kind kind>
  GPTQ_INLINE __m512i load_codes(const uint8_t* tile, uint32_t line) {
    const uint32_t next = line + 1;
    if constexpr (kind == Kind::q4 || kind == Kind::q8) return nibbles(tile + 64 * line, 0, tile + 64 * next, 0, 15);
    const __m512i low = nibbles(tile + 64 * (line % 4), line / 4 * 2, tile + 64 * (next % 4), next / 4 * 2, 3);
    if constexpr (kind == Kind::q2) return low;
    const uint8_t* high = tile + 256 + 64 * (line / 4);
    return _mm512_or_si512(low, _mm512_slli_epi16(nibbles(high, line % 4, high, next % 4, 1), 2));
  }

  template <Kind kind>
  GPTQ_INLINE Lines load_lines(const uint8_t* tile, uint32_t line) {
    Lines w;
#pragma GCC unroll 2
    for (uint32_t i = 0; i < 2; ++i)
#pragma GCC unroll 4
      for (uint32_t t = 0; t < 4; ++t) w.codes[i][t] = load_codes<kind>(tile + 16 * t, line + 2 * i);
    return w;
  }

  // vpmaddwd multiplies the sums' lower halves; the multipliers have zeros above them.
  GPTQ_INLINE void add_products(__m512i dots, __m512i multipliers, const float* scale, float* sum) {
    const __m512 products = _mm512_cvtepi32_ps(_mm512_madd_epi16(dots, multipliers));
    _mm512_store_ps(sum, _mm512_fmadd_ps(products, _mm512_load_ps(scale), _mm512_load_ps(sum)));
  }

  GPTQ_INLINE void add_token(const Lines& w, const float (*scale)[8], const Record& x, float* sum) {
    __m512i first = _mm512_setzero_si512(), second = first;
#pragma GCC unroll 4
    for (uint32_t t = 0; t < 4; ++t) {
      const __m512i q = load_to_all(x.q + 16 * t);
      first = _mm512_dpbusd_epi32(first, w.codes[0][t], q);
      second = _mm512_dpbusd_epi32(second, w.codes[1][t], q);
    }
    const __m512i multipliers = _mm512_srli_epi32(load_to_all(x.multiplier), 16);
    add_products(first, multipliers, scale[0], sum);
    add_products(second, multipliers, scale[2], sum + 16);
  }
};

}  // namespace

void matmul_int8_avx512vnni(const MatmulArgs& a) { matmul_int8<Int8Avx512>(a); }

}  // namespace gptq::kernels
