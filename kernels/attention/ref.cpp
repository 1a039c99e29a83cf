// SPDX-License-Identifier: Apache-2.0
// Attention of one sequence over its paged KV cache: the specification.
#include <math.h>

#include "kernels/element.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_head_dim = 512;

double score(const AttentionArgs& a, const float* q, uint32_t kv_head, uint32_t position) {
  const std::byte* key = a.kv.base + kv_row(a.kv, kv_head, position);
  double dot = 0;
  for (uint32_t d = 0; d < a.kv.head_dim; ++d) dot += static_cast<double>(q[d]) * load_element(key, d, a.kv.f32 ? Kind::f32 : Kind::f16);
  return dot * a.scale;
}

void attend(const AttentionArgs& a, const float* q, float* out, uint32_t kv_head, uint32_t first, uint32_t last) {
  double max = -INFINITY, total = 0, sum[max_head_dim] = {};
  for (uint32_t position = first; position <= last; ++position) max = fmax(max, score(a, q, kv_head, position));
  for (uint32_t position = first; position <= last; ++position) {
    const double p = exp(score(a, q, kv_head, position) - max);
    const std::byte* value = a.kv.base + kv_row(a.kv, kv_head, position) + a.kv.value_offset;
    total += p;
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) sum[d] += p * load_element(value, d, a.kv.f32 ? Kind::f32 : Kind::f16);
  }
  for (uint32_t d = 0; d < a.kv.head_dim; ++d) out[d] = static_cast<float>(sum[d] / total);
}

}  // namespace

void attention_ref(const AttentionArgs& a) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = a.first_kv_head * heads_per_kv; head < a.last_kv_head * heads_per_kv; ++head) {
      const uint64_t at = (uint64_t{i} * a.n_heads + head) * a.kv.head_dim;
      const uint32_t last = a.first_position + i, first = a.window && last >= a.window ? last - a.window + 1 : 0;
      attend(a, a.q + at, a.out + at, head / heads_per_kv, first, last);
    }
}

}  // namespace gptq::kernels
