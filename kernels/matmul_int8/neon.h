// SPDX-License-Identifier: Apache-2.0
// matmul_int8 with NEON, around what the file is compiled for: products of pairs of rows and tokens (i8mm), dot products, or neither. The
// codes of two rows stay in registers while the tokens pass by. Zero points come off through the sums of the activations. 8-bit codes
// are two 4-bit halves. A tile's scales go by 16-column pieces, so that groups of any size go the same way.
#pragma once
#if defined(__ARM_FEATURE_MATMUL_INT8)
#include "kernels/matmul_int8/neon_pairs.h"
#else
#include "kernels/matmul_int8/neon_dots.h"
#endif

namespace gptq::kernels {
namespace {

// What the zero points add to one token.
void sum_zeros(const MatmulArgs& a, uint32_t block, uint32_t token, float* zeros) {
  memset(zeros, 0, 16 * sizeof *zeros);
  for (uint32_t begin = 0; begin < a.x8.k_padded; begin += a.x8.sum_block) {
    float scale[16], zero[16];
    load_group(*a.w, uint64_t{block} * n_groups(*a.w) + begin / a.w->group, scale, zero);
    const Floats sum = all(a.x8.sum[uint64_t{begin} / a.x8.sum_block * a.x8.rows + token]);
    for (uint32_t r = 0; r < 16; r += lanes) store(zeros + r, fma(sum, multiply(load(scale + r), load(zero + r)), load(zeros + r)));
  }
}

template <Kind kind>
void multiply_block(const MatmulArgs& a, uint32_t block, uint32_t token, uint32_t n) {
  const uint32_t n_tiles = a.w->k_padded / 64, rows = a.w->n - block * 16 < 16 ? a.w->n - block * 16 : 16;
  const auto* codes = static_cast<const uint8_t*>(a.w->codes) + uint64_t{block} * n_tiles * tile_bytes(kind);
  Sums sums = {};
  RowScales scales;
  for (uint32_t tile = 0; tile < n_tiles; ++tile, codes += tile_bytes(kind)) {
    const bool same_group = tile && a.w->group % 64 == 0 && tile * 64 % a.w->group;
    if (!same_group) load_row_scales(*a.w, block, tile, scales);
    add_tile<kind>(codes, scales, a.x8.records + uint64_t{tile} * a.x8.rows + token, n, sums);
  }
  for (uint32_t t = 0; t < n; ++t) {
    float zeros[16];
    sum_zeros(a, block, token + t, zeros);
    float* y = a.y + uint64_t{token + t} * a.y_stride + block * 16;
    for (uint32_t r = 0; r < rows; ++r) {
      const float base = (a.accumulate ? y[r] : 0) + (a.bias ? a.bias[block * 16 + r] : 0);
      y[r] = (total<kind>(sums, r, t) - zeros[r]) * a.x8.scale[token + t] + base;
    }
  }
}

template <Kind kind>
void multiply_all(const MatmulArgs& a) {
  for (uint32_t token = 0; token < a.m; token += tokens_together)
    for (uint32_t block = a.first_block; block < a.last_block; ++block)
      multiply_block<kind>(a, block, token, a.m - token < tokens_together ? a.m - token : tokens_together);
}

GPTQ_INLINE void multiply_any(const MatmulArgs& a) {
  with_quantized_kind(a.w->kind, [&]<Kind kind>() { multiply_all<kind>(a); });
}

}  // namespace
}  // namespace gptq::kernels
