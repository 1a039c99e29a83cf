// SPDX-License-Identifier: Apache-2.0
// Attention of one sequence over its paged KV cache: the specification.
#include <math.h>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::kernels {
namespace {

struct Partial {
  double sum[largest_head] = {}, max = -INFINITY, total = 0;
};

// Element d of a row whose elements are `step` apart; scale: of the row. Codes in 4 bits share a byte with their neighbour or the one 8 further.
double element(const std::byte* row, uint32_t d, uint32_t step, KvKind kind, const float* scale) {
  switch (kind) {
    case KvKind::f32: return reinterpret_cast<const float*>(row)[uint64_t{d} * step];
    case KvKind::f16: return float_from_half(reinterpret_cast<const uint16_t*>(row)[uint64_t{d} * step]);
    case KvKind::i8: return double{*scale} * reinterpret_cast<const int8_t*>(row)[uint64_t{d} * step];
    case KvKind::i4: break;
  }
  const bool key = step > 1, high = key ? d % 2 : d % 16 / 8;
  const uint32_t at = key ? d / 2 * step : d / 16 * 8 + d % 8, code = static_cast<uint32_t>(row[at]) >> (high ? 4 : 0) & 15, word = bits_from_float(*scale);
  return double{float_from_bits(word & 0xffff0000)} * code + float_from_bits(word << 16);
}

const float* scale_of(KvKind kind, const float* scales) { return kv_is_scaled(kind) ? scales : nullptr; }

struct Query {
  const float* q;
  uint32_t head, kv_head, position;
};

double product(const AttentionArgs& a, const Query& query, uint32_t position) {
  const std::byte* key = kv_key(a.kv, query.kv_head, position);
  const float* scale = scale_of(a.kv.kinds.keys, kv_key_scales(a.kv, query.kv_head, position));
  double dot = 0;
  for (uint32_t d = 0; d < a.kv.key_dim; ++d) dot += query.q[d] * element(key, d, 16, a.kv.kinds.keys, scale);
  return kv_key_is_relative(a.kv, position) ? dot + product(a, query, position / 16 * 16) : dot;
}

double score(const AttentionArgs& a, const Query& query, uint32_t position) {
  double logit = product(a, query, position) * a.scale;
  if (a.softcap != 0) logit = a.softcap * tanh(logit / a.softcap);
  if (a.alibi_slopes) logit -= double{a.alibi_slopes[query.head]} * (query.position - position);
  return logit * M_LOG2E;
}

// The positions first .. last.
Partial attend(const AttentionArgs& a, const Query& query, uint32_t first, uint32_t last) {
  Partial r;
  for (uint32_t position = first; position <= last; ++position) r.max = fmax(r.max, score(a, query, position));
  for (uint32_t position = first; position <= last; ++position) {
    const double weight = exp2(score(a, query, position) - r.max);
    const std::byte* value = kv_value(a.kv, query.kv_head, position);
    const float* scale = scale_of(a.kv.kinds.values, kv_value_scales(a.kv, query.kv_head, position));
    r.total += weight;
    for (uint32_t d = 0; d < a.kv.value_dim; ++d) r.sum[d] += weight * element(value, d, 1, a.kv.kinds.values, scale);
  }
  return r;
}

void partials_of(const AttentionArgs& a, const Query& query, uint64_t index, uint32_t first) {
  const uint32_t n = a.kv.value_dim, last = query.position;
  for (uint32_t block = a.first_block; block < a.last_block; ++block) {
    const uint32_t begin = block * attention_block, end = begin + attention_block - 1;
    if (first > end || last < begin) continue;
    const Partial r = attend(a, query, first > begin ? first : begin, last < end ? last : end);
    float* to = a.partials + (block - a.first_block) * a.block_stride + index * (n + 2);
    for (uint32_t d = 0; d < n; ++d) to[d] = static_cast<float>(r.sum[d]);
    to[n] = static_cast<float>(r.max);
    to[n + 1] = static_cast<float>(r.total);
  }
}

}  // namespace

void attention_ref(const AttentionArgs& a) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = a.first_kv_head * heads_per_kv; head < a.last_kv_head * heads_per_kv; ++head) {
      const uint64_t index = uint64_t{i} * a.n_heads + head;
      const Query query = {a.q + index * a.kv.key_dim, head, head / heads_per_kv, a.first_position + i};
      const uint32_t first = first_seen(query.position, a.window, a.chunk);
      if (a.partials) {
        partials_of(a, query, index, first);
        continue;
      }
      const Partial r = attend(a, query, first, query.position);
      const double sink = a.sinks ? a.sinks[head] * M_LOG2E : -INFINITY, max = fmax(r.max, sink);
      const double keep = a.sinks ? exp2(r.max - max) : 1;
      const double total = a.sinks ? r.total * keep + exp2(sink - max) : r.total;
      float* out = a.out + index * a.kv.value_dim;
      for (uint32_t d = 0; d < a.kv.value_dim; ++d) out[d] = static_cast<float>(r.sum[d] * keep / total);
    }
}

}  // namespace gptq::kernels
