// SPDX-License-Identifier: Apache-2.0
// How the partials of attention's blocks are put together, for any vector width: one after another, in order of position.
#pragma once
#include "kernels/kv.h"
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

struct Running {
  float max = -__builtin_inff(), total = 0;
};

// out and r: the blocks before, at first zeros.
GPTQ_INLINE void merge(float* out, Running& r, const float* sum, float max, float total, uint32_t head_dim) {
  const float new_max = max > r.max ? max : r.max;
  const Floats keep = exp2_negative(all(r.max - new_max)), gain = exp2_negative(all(max - new_max));
  uint32_t d = 0;
  for (; d + lanes <= head_dim; d += lanes) store(out + d, fma(load(sum + d), gain, multiply(load(out + d), keep)));
  float factors[2][lanes], totals[lanes];
  store(factors[0], keep);
  store(factors[1], gain);
  for (; d < head_dim; ++d) out[d] = out[d] * factors[0][0] + sum[d] * factors[1][0];
  store(totals, fma(all(total), gain, multiply(all(r.total), keep)));
  r = {new_max, totals[0]};
}

GPTQ_INLINE void divide(float* out, float total, uint32_t head_dim) {
  for (uint32_t d = 0; d < head_dim; ++d) out[d] /= total;
}

GPTQ_INLINE void merge_partials(const MergeAttentionArgs& a) {
  const uint64_t partial = a.head_dim + 2;
  for (uint64_t query = a.first_query; query < a.last_query; ++query) {
    const uint32_t position = a.first_position + static_cast<uint32_t>(query / a.n_heads);
    float* out = a.out + query * a.head_dim;
    Running r;
    memset(out, 0, a.head_dim * sizeof(float));
    for (uint32_t block = first_seen(position, a.window) / attention_block; block <= position / attention_block; ++block) {
      const float* from = a.partials + (block - a.first_block) * a.block_stride + query * partial;
      merge(out, r, from, from[a.head_dim], from[a.head_dim + 1], a.head_dim);
    }
    divide(out, r.total, a.head_dim);
  }
}

}  // namespace
}  // namespace gptq::kernels
