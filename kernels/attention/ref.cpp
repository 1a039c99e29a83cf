// SPDX-License-Identifier: Apache-2.0
// Attention of one sequence over its paged KV cache: the specification.
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_head_dim = 512;

struct Partial {
  double sum[max_head_dim] = {}, max = -INFINITY, total = 0;
};

double element(const std::byte* data, uint64_t index, KvKind kind) {
  if (kind == KvKind::f32) return reinterpret_cast<const float*>(data)[index];
  if (kind == KvKind::f16) return float_from_half(reinterpret_cast<const uint16_t*>(data)[index]);
  return reinterpret_cast<const int8_t*>(data)[index];
}

double score(const AttentionArgs& a, const float* q, uint32_t kv_head, uint32_t position) {
  const std::byte* key = kv_key(a.kv, kv_head, position);
  double dot = 0;
  for (uint32_t d = 0; d < a.kv.head_dim; ++d) dot += q[d] * element(key, d * 16, a.kv.kind);
  if (a.kv.kind == KvKind::i8) dot *= *kv_key_scales(a.kv, kv_head, position);
  return dot * a.scale * M_LOG2E;
}

// The positions first .. last.
Partial attend(const AttentionArgs& a, const float* q, uint32_t kv_head, uint32_t first, uint32_t last) {
  Partial r;
  for (uint32_t position = first; position <= last; ++position) r.max = fmax(r.max, score(a, q, kv_head, position));
  for (uint32_t position = first; position <= last; ++position) {
    const double weight = exp2(score(a, q, kv_head, position) - r.max);
    const std::byte* value = kv_value(a.kv, kv_head, position);
    const double scale = a.kv.kind == KvKind::i8 ? *kv_value_scales(a.kv, kv_head, position) : 1;
    r.total += weight;
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) r.sum[d] += weight * scale * element(value, d, a.kv.kind);
  }
  return r;
}

void partials_of(const AttentionArgs& a, const float* q, uint64_t query, uint32_t kv_head, uint32_t first, uint32_t last) {
  for (uint32_t block = a.first_block; block < a.last_block; ++block) {
    const uint32_t begin = block * attention_block, end = begin + attention_block - 1;
    if (first > end || last < begin) continue;
    const Partial r = attend(a, q, kv_head, first > begin ? first : begin, last < end ? last : end);
    float* to = a.partials + (block - a.first_block) * a.block_stride + query * (a.kv.head_dim + 2);
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) to[d] = static_cast<float>(r.sum[d]);
    to[a.kv.head_dim] = static_cast<float>(r.max);
    to[a.kv.head_dim + 1] = static_cast<float>(r.total);
  }
}

}  // namespace

void attention_ref(const AttentionArgs& a) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = a.first_kv_head * heads_per_kv; head < a.last_kv_head * heads_per_kv; ++head) {
      const uint64_t query = uint64_t{i} * a.n_heads + head;
      const float* q = a.q + query * a.kv.head_dim;
      const uint32_t last = a.first_position + i, first = first_seen(last, a.window);
      if (a.partials) {
        partials_of(a, q, query, head / heads_per_kv, first, last);
        continue;
      }
      const Partial r = attend(a, q, head / heads_per_kv, first, last);
      for (uint32_t d = 0; d < a.kv.head_dim; ++d) a.out[query * a.kv.head_dim + d] = static_cast<float>(r.sum[d] / r.total);
    }
}

}  // namespace gptq::kernels
