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
GPTQ_INLINE void merge(float* out, Running& r, const float* sum, float max, float total, uint32_t dim) {
  const float new_max = max > r.max ? max : r.max;
  const Floats keep = exp2_negative(all(r.max - new_max)), gain = exp2_negative(all(max - new_max));
  uint32_t d = 0;
  for (; d + lanes <= dim; d += lanes) store(out + d, fma(load(sum + d), gain, multiply(load(out + d), keep)));
  float factors[2][lanes], totals[lanes];
  store(factors[0], keep);
  store(factors[1], gain);
  for (; d < dim; ++d) out[d] = out[d] * factors[0][0] + sum[d] * factors[1][0];
  store(totals, fma(all(total), gain, multiply(all(r.total), keep)));
  r = {new_max, totals[0]};
}

// One more logit, without a value.
void add_sink(float* out, Running& r, float sink, uint32_t dim) {
  static const float nothing[largest_head] = {};
  merge(out, r, nothing, sink * 1.44269504f, 1, dim);
}

// The last step of a query of this head; sinks may be NULL.
GPTQ_INLINE void finish(float* out, Running& r, const float* sinks, uint64_t head, uint32_t dim) {
  if (sinks) add_sink(out, r, sinks[head], dim);
  const float total = r.total;
  for (uint32_t d = 0; d < dim; ++d) out[d] /= total;
}

GPTQ_INLINE void merge_partials(const MergeAttentionArgs& a) {
  const uint32_t dim = a.value_dim;
  const uint64_t partial = dim + 2;
  for (uint64_t query = a.first_query; query < a.last_query; ++query) {
    const uint32_t position = a.first_position + static_cast<uint32_t>(query / a.n_heads);
    float* out = a.out + query * dim;
    Running r;
    memset(out, 0, dim * sizeof(float));
    for (uint32_t block = first_seen(position, a.window, a.chunk) / attention_block; block <= position / attention_block; ++block) {
      const float* from = a.partials + (block - a.first_block) * a.block_stride + query * partial;
      merge(out, r, from, from[dim], from[dim + 1], dim);
    }
    finish(out, r, a.sinks, query % a.n_heads, dim);
  }
}

}  // namespace
}  // namespace gptq::kernels
