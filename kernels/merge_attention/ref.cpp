// SPDX-License-Identifier: Apache-2.0
// Partial results of attention put together: the specification.
#include <math.h>

#include "kernels/kv.h"

namespace gptq::kernels {

void merge_attention_ref(const MergeAttentionArgs& a) {
  const uint64_t partial = a.head_dim + 2;
  for (uint64_t query = a.first_query; query < a.last_query; ++query) {
    const uint32_t position = a.first_position + static_cast<uint32_t>(query / a.n_heads);
    const uint32_t first = first_seen(position, a.window) / attention_block - a.first_block, last = position / attention_block - a.first_block;
    const float* from = a.partials + query * partial;
    double max = -INFINITY, total = 0;
    for (uint64_t b = first; b <= last; ++b) max = from[b * a.block_stride + a.head_dim] > max ? from[b * a.block_stride + a.head_dim] : max;
    for (uint64_t b = first; b <= last; ++b) total += exp2(from[b * a.block_stride + a.head_dim] - max) * from[b * a.block_stride + a.head_dim + 1];
    for (uint32_t d = 0; d < a.head_dim; ++d) {
      double sum = 0;
      for (uint64_t b = first; b <= last; ++b) sum += exp2(from[b * a.block_stride + a.head_dim] - max) * from[b * a.block_stride + d];
      a.out[query * a.head_dim + d] = static_cast<float>(sum / total);
    }
  }
}

}  // namespace gptq::kernels
