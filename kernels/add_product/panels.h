// SPDX-License-Identifier: Apache-2.0
// c += a b in float32: 4 rows and as many columns as 12 or 24 registers hold, a piece of a panel of b staying in the first cache while
// the rows pass.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t part_columns = lanes == 16 ? panel_columns : panel_columns / 2, part_vectors = part_columns / lanes;
constexpr uint32_t depth = 128;  // of a piece

// R rows x part_columns from row i and column j on, over k columns of a from l on.
template <int R>
__attribute__((noinline)) void add_part(const AddProductArgs& p, uint32_t i, uint32_t l, uint32_t j, uint32_t k) {
  const float *a = p.a + i * p.a_row + l * p.a_step, *b = p.b + uint64_t{j / panel_columns * panel_columns} * p.k + uint64_t{l} * panel_columns + j % panel_columns;
  Floats sum[R][part_vectors];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 6
    for (uint32_t v = 0; v < part_vectors; ++v) sum[r][v] = all(0);
  for (uint32_t step = 0; step < k; ++step, a += p.a_step, b += panel_columns) {
    Floats values[part_vectors];
#pragma GCC unroll 6
    for (uint32_t v = 0; v < part_vectors; ++v) values[v] = load(b + v * lanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Floats factor = all(a[r * p.a_row]);
#pragma GCC unroll 6
      for (uint32_t v = 0; v < part_vectors; ++v) sum[r][v] = fma(factor, values[v], sum[r][v]);
    }
  }
  const uint32_t columns = p.n - j;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    float* c = p.c + (i + r) * p.c_stride + j;
#pragma GCC unroll 6
    for (uint32_t v = 0; v < part_vectors; ++v) {
      const uint32_t at = v * lanes;
      if (at + lanes <= columns) store(c + at, add(load(c + at), sum[r][v]));
      else if (at < columns) store_part(c + at, add(load_part(c + at, columns - at), sum[r][v]), columns - at);
    }
  }
}

void add_product(const AddProductArgs& p) {
  constexpr uint32_t rows = 256;  // whose piece of a stays in the second cache
  for (uint32_t first = 0; first < p.m; first += rows) {
    const uint32_t last = p.m - first < rows ? p.m : first + rows;
    for (uint32_t l = 0; l < p.k; l += depth)
      for (uint32_t j = 0; j < p.n; j += part_columns) {
        const uint32_t k = p.k - l < depth ? p.k - l : depth;
        uint32_t i = first;
        for (; i + 4 <= last; i += 4) add_part<4>(p, i, l, j, k);
        for (; i < last; ++i) add_part<1>(p, i, l, j, k);
      }
  }
}

}  // namespace
}  // namespace gptq::kernels
