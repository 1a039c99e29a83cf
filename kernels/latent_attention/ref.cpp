// SPDX-License-Identifier: Apache-2.0
// Attention of many heads over one row a token: the specification.
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {
namespace {

struct LatentPartial {
  double sum[largest_head] = {}, max = -INFINITY, total = 0;
};

double element(const LatentView& kv, uint32_t position, uint32_t d) {
  const std::byte* row = latent_row(kv, position);
  if (kv.kind == KvKind::f32) return reinterpret_cast<const float*>(row)[d];
  if (kv.kind == KvKind::f16) return float_from_half(reinterpret_cast<const uint16_t*>(row)[d]);
  return double{*latent_scale(kv, position)} * reinterpret_cast<const int8_t*>(row)[d];
}

double score(const LatentAttentionArgs& a, const float* q, uint32_t position) {
  double dot = 0;
  for (uint32_t d = 0; d < a.kv.width; ++d) dot += q[d] * element(a.kv, position, d);
  return dot * a.scale * M_LOG2E;
}

LatentPartial attend(const LatentAttentionArgs& a, const float* q, uint32_t first, uint32_t last) {
  LatentPartial r;
  for (uint32_t position = first; position <= last; ++position) r.max = fmax(r.max, score(a, q, position));
  for (uint32_t position = first; position <= last; ++position) {
    const double weight = exp2(score(a, q, position) - r.max);
    r.total += weight;
    for (uint32_t d = 0; d < a.kv.rank; ++d) r.sum[d] += weight * element(a.kv, position, d);
  }
  return r;
}

void partials_of(const LatentAttentionArgs& a, const float* q, uint64_t query, uint32_t last) {
  const uint32_t n = a.kv.rank;
  for (uint32_t block = a.first_block; block < a.last_block && block * attention_block <= last; ++block) {
    const uint32_t begin = block * attention_block, end = begin + attention_block - 1;
    const LatentPartial r = attend(a, q, begin, last < end ? last : end);
    float* to = a.partials + (block - a.first_block) * a.block_stride + query * (n + 2);
    for (uint32_t d = 0; d < n; ++d) to[d] = static_cast<float>(r.sum[d]);
    to[n] = static_cast<float>(r.max);
    to[n + 1] = static_cast<float>(r.total);
  }
}

}  // namespace

void latent_attention_ref(const LatentAttentionArgs& a) {
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = a.first_head; head < a.last_head; ++head) {
      const uint64_t query = uint64_t{i} * a.n_heads + head;
      const float* q = a.q + query * a.kv.width;
      if (a.partials) {
        partials_of(a, q, query, a.first_position + i);
        continue;
      }
      const LatentPartial r = attend(a, q, 0, a.first_position + i);
      for (uint32_t d = 0; d < a.kv.rank; ++d) a.out[query * a.kv.rank + d] = static_cast<float>(r.sum[d] / r.total);
    }
}

}  // namespace gptq::kernels
