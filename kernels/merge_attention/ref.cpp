// SPDX-License-Identifier: Apache-2.0
// Partial results of attention put together: the specification.
#include <math.h>

#include "kernels/kv.h"

namespace gptq::kernels {

void merge_attention_ref(const MergeAttentionArgs& a) {
  const uint32_t n = a.value_dim;
  const uint64_t partial = n + 2;
  for (uint64_t query = a.first_query; query < a.last_query; ++query) {
    const uint32_t position = a.first_position + static_cast<uint32_t>(query / a.n_heads);
    const uint32_t first = first_seen(position, a.window, a.chunk) / attention_block - a.first_block;
    const uint32_t last = position / attention_block - a.first_block;
    const float* from = a.partials + query * partial;
    const double sink = a.sinks ? a.sinks[query % a.n_heads] * M_LOG2E : -INFINITY;
    double max = sink;
    for (uint64_t b = first; b <= last; ++b) max = from[b * a.block_stride + n] > max ? from[b * a.block_stride + n] : max;
    double total = a.sinks ? exp2(sink - max) : 0;
    for (uint64_t b = first; b <= last; ++b) total += exp2(from[b * a.block_stride + n] - max) * from[b * a.block_stride + n + 1];
    for (uint32_t d = 0; d < n; ++d) {
      double sum = 0;
      for (uint64_t b = first; b <= last; ++b) sum += exp2(from[b * a.block_stride + n] - max) * from[b * a.block_stride + d];
      a.out[query * n + d] = static_cast<float>(sum / total);
    }
  }
}

}  // namespace gptq::kernels
