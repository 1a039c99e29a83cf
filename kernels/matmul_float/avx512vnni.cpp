// SPDX-License-Identifier: Apache-2.0
// matmul_float in 16 lanes.
#include "kernels/matmul_float/x86.h"

namespace gptq::kernels {
namespace {

// The elements of a mask as float32, zeros in the other lanes.
template <Kind kind>
GPTQ_INLINE __m512 load16(const void* data, uint64_t index, __mmask16 mask) {
  if constexpr (kind == Kind::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(data) + index);
  const __m256i bits = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(data) + index);
  if constexpr (kind == Kind::f16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// The upper half onto the lower.
GPTQ_INLINE __m256 fold(__m512 v) {
  const __m256d upper = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1);
  return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(upper));
}

struct FloatAvx512 {
  static constexpr int tokens = 6;
  static constexpr bool adds_tiles = false;

  // 4 rows x T tokens.
  template <Kind kind, int T>
  GPTQ_INLINE void dot(const Rows& w, const float* x, uint64_t x_stride, float (&sums)[T][4]) {
    __m512 acc[4][T];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r)
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) acc[r][t] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < w.columns; k += 16) {
      const auto mask = static_cast<__mmask16>(w.columns - k < 16 ? (1u << (w.columns - k)) - 1 : 0xffffu);
      __m512 columns[T];
#pragma GCC unroll 6
      for (uint64_t t = 0; t < T; ++t) columns[t] = load16<Kind::f32>(x + t * x_stride, k, mask);
#pragma GCC unroll 4
      for (uint64_t r = 0; r < 4; ++r) {
        if constexpr (T == 1 || kind != Kind::f32) prefetch(static_cast<const char*>(w.data) + (r * w.stride + k + w.ahead) * (bits_of(kind) / 8));
        const __m512 row = load16<kind>(w.data, r * w.stride + k, mask);
#pragma GCC unroll 6
        for (int t = 0; t < T; ++t) acc[r][t] = _mm512_fmadd_ps(row, columns[t], acc[r][t]);
      }
    }
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) _mm_storeu_ps(sums[t], sum_lanes(fold(acc[0][t]), fold(acc[1][t]), fold(acc[2][t]), fold(acc[3][t])));
  }
};

}  // namespace

void matmul_float_avx512vnni(const MatmulArgs& a) { matmul_float<FloatAvx512>(a); }

}  // namespace gptq::kernels
