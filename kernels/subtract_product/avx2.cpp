// SPDX-License-Identifier: Apache-2.0
// c -= a b in double, 4 rows x 12 columns in registers, b in pieces that are copied into the first cache and stay while all rows pass.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t piece_rows = 96, piece_columns = 24;  // of b

// R rows x V vectors.
template <int R, int V>
GPTQ_INLINE void block(const SubtractProductArgs& p, uint32_t i, uint32_t j) {
  __m256d sum[R][V];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[r][v] = _mm256_setzero_pd();
  const double *a = p.a + i * p.a_stride, *b = p.b + j;
  for (uint32_t l = 0; l < p.k; ++l, b += p.b_stride) {
    __m256d values[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) values[v] = _mm256_loadu_pd(b + 4 * v);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256d factor = _mm256_broadcast_sd(a + r * p.a_stride + l);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) sum[r][v] = _mm256_fmadd_pd(factor, values[v], sum[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      double* c = p.c + (i + r) * p.c_stride + j + 4 * v;
      _mm256_storeu_pd(c, _mm256_sub_pd(_mm256_loadu_pd(c), sum[r][v]));
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
  for (; j + 12 <= p.n; j += 12) block<R, 3>(p, i, j);
  for (; j + 4 <= p.n; j += 4) block<R, 1>(p, i, j);
  for (; j < p.n; ++j)
    for (int r = 0; r < R; ++r) column(p, i + r, j);
}

}  // namespace

void subtract_product_avx2(const SubtractProductArgs& whole) {
  alignas(64) double piece[piece_rows * piece_columns];
  for (uint32_t l = 0; l < whole.k; l += piece_rows)
    for (uint32_t j = 0; j < whole.n; j += piece_columns) {
      SubtractProductArgs p = whole;
      p.k = l + piece_rows < whole.k ? piece_rows : whole.k - l;
      p.n = j + piece_columns < whole.n ? piece_columns : whole.n - j;
      for (uint32_t row = 0; row < p.k; ++row) memcpy(piece + row * piece_columns, whole.b + (l + row) * whole.b_stride + j, p.n * sizeof(double));
      p.a += l;
      p.b = piece;
      p.b_stride = piece_columns;
      p.c += j;
      uint32_t i = 0, ahead = 0;  // the next piece's rows
      for (; i + 4 <= p.m; i += 4) {
        for (const uint32_t end = p.k * (i + 4) / p.m; ahead < end; ++ahead)
          for (uint32_t column = 0; column < piece_columns; column += 8)
            prefetch(whole.b + (l + ahead) * whole.b_stride + j + piece_columns + column);
        rows<4>(p, i);
      }
      for (; i < p.m; ++i) rows<1>(p, i);
    }
}

}  // namespace gptq::kernels
