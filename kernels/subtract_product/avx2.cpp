// SPDX-License-Identifier: Apache-2.0
// c -= a b in double, 4 rows x 8 columns in registers, b in pieces that stay in the first cache while all rows pass.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t piece = 64;  // rows and columns of b

template <int R>
GPTQ_INLINE void block8(const SubtractProductArgs& p, uint32_t i, uint32_t j) {
  __m256d sum[R][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_pd();
  const double *a = p.a + i * p.a_stride, *b = p.b + j;
  for (uint32_t l = 0; l < p.k; ++l, b += p.b_stride) {
    const __m256d b0 = _mm256_loadu_pd(b), b1 = _mm256_loadu_pd(b + 4);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256d value = _mm256_broadcast_sd(a + r * p.a_stride + l);
      sum[r][0] = _mm256_fmadd_pd(value, b0, sum[r][0]);
      sum[r][1] = _mm256_fmadd_pd(value, b1, sum[r][1]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    double* c = p.c + (i + r) * p.c_stride + j;
    _mm256_storeu_pd(c, _mm256_sub_pd(_mm256_loadu_pd(c), sum[r][0]));
    _mm256_storeu_pd(c + 4, _mm256_sub_pd(_mm256_loadu_pd(c + 4), sum[r][1]));
  }
}

// Columns that fill no vector.
GPTQ_INLINE void column(const SubtractProductArgs& p, uint32_t i, uint32_t j) {
  double sum = 0;
  for (uint32_t l = 0; l < p.k; ++l) sum += p.a[i * p.a_stride + l] * p.b[l * p.b_stride + j];
  p.c[i * p.c_stride + j] -= sum;
}

template <int R>
GPTQ_INLINE void rows(const SubtractProductArgs& p, uint32_t i) {
  uint32_t j = 0;
  for (; j + 8 <= p.n; j += 8) block8<R>(p, i, j);
  for (; j < p.n; ++j)
    for (int r = 0; r < R; ++r) column(p, i + r, j);
}

}  // namespace

void subtract_product_avx2(const SubtractProductArgs& whole) {
  for (uint32_t l = 0; l < whole.k; l += piece)
    for (uint32_t j = 0; j < whole.n; j += piece) {
      SubtractProductArgs p = whole;
      p.a += l;
      p.b += l * p.b_stride + j;
      p.c += j;
      p.k = l + piece < whole.k ? piece : whole.k - l;
      p.n = j + piece < whole.n ? piece : whole.n - j;
      uint32_t i = 0;
      for (; i + 4 <= p.m; i += 4) rows<4>(p, i);
      for (; i < p.m; ++i) rows<1>(p, i);
    }
}

}  // namespace gptq::kernels
