// SPDX-License-Identifier: Apache-2.0
// Attention for any vector width. Scores hold positions in their lanes, each summed over key_dim in order; outputs hold elements of
// value_dim, summed over the positions of a block in order: what a query gets depends on nothing but its position.
#pragma once
#include "kernels/attention/ahead.h"
#include "kernels/attention/groups.h"
#include "kernels/attention/merge.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t group_queries = 8;      // share the rows they read, four at a time from registers
constexpr uint32_t value_bytes = 4096;     // of values are added at a time

// Queries of a KV head, in order of position, in one block. begin, end: what each sees of it.
struct Group {
  uint32_t n, kv_head, block;
  const float* q[group_queries];
  uint32_t begin[group_queries], end[group_queries];
  float max[group_queries], total[group_queries];
  float q_sum[group_queries];   // where keys are int4: what their offsets are multiplied by
  float offset[group_queries];  // where values are int4: the sum of weights times offsets
  float* sums[group_queries];
  alignas(64) float weights[group_queries][attention_block];
  alignas(64) float sum_rows[group_queries * largest_head];
  uint32_t position(uint32_t at) const { return block * attention_block + at; }
};

// Calls f(first, Count<n>) for the queries of a group, n at a time.
template <class F>
GPTQ_INLINE void for_queries(uint32_t n, F f) {
  uint32_t first = 0;
  for (; first + 4 <= n; first += 4) f(first, Count<4>());
  if (n - first == 3) f(first, Count<3>());
  if (n - first == 2) f(first, Count<2>());
  if (n - first == 1) f(first, Count<1>());
}

template <class F>
GPTQ_INLINE void with_kv_kind(KvKind kind, F f) {
  switch (kind) {
    case KvKind::f16: return f.template operator()<KvKind::f16>();
    case KvKind::f32: return f.template operator()<KvKind::f32>();
    case KvKind::i8: return f.template operator()<KvKind::i8>();
    case KvKind::i4: return f.template operator()<KvKind::i4>();
  }
}

// To the scores of a tile that of its first position, to whose key the others are relative.
GPTQ_INLINE void add_first(float* scores) {
  alignas(64) static const float others[16] = {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  const Floats first = all(scores[0]);
  for (uint32_t j = 0; j < 16; j += lanes) store(scores + j, fma(first, load(others + j), load(scores + j)));
}

// Scores of 16 * tiles positions for T queries.
template <KvKind kind, uint32_t T, uint32_t tiles>
GPTQ_INLINE void score(const AttentionArgs& a, uint32_t at, uint32_t first, Group& g) {
  constexpr uint32_t per_tile = 16 / lanes, parts = tiles * per_tile;
  const std::byte* key[tiles];
  const float* query[T];
  for (uint32_t i = 0; i < tiles; ++i) key[i] = kv_key(a.kv, g.kv_head, g.position(at + i * 16));
  for (uint32_t t = 0; t < T; ++t) query[t] = g.q[first + t];
  Floats sums[T][parts];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (uint32_t i = 0; i < parts; ++i) sums[t][i] = all(0);
  const auto add_element = [&](uint64_t d, auto load_part_of_key) __attribute__((always_inline)) {
    Floats k[parts];
#pragma GCC unroll 8
    for (uint32_t i = 0; i < parts; ++i) k[i] = load_part_of_key(i);
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const Floats q = all(query[t][d]);
#pragma GCC unroll 8
      for (uint32_t i = 0; i < parts; ++i) sums[t][i] = fma(q, k[i], sums[t][i]);
    }
  };
  const uint64_t dim = a.kv.key_dim;
  if constexpr (kind == KvKind::i4) {
    for (uint64_t d = 0; d < dim; d += 2) {
      Codes codes[parts];
#pragma GCC unroll 8
      for (uint32_t i = 0; i < parts; ++i) codes[i] = load_codes(key[i / per_tile] + d * 8 + i % per_tile * lanes);
      add_element(d, [&](uint32_t i) __attribute__((always_inline)) { return low_codes(codes[i]); });
      if (d + 1 < dim) add_element(d + 1, [&](uint32_t i) __attribute__((always_inline)) { return high_codes(codes[i]); });
    }
  } else {
    for (uint64_t d = 0; d < dim; ++d)
      add_element(d, [&](uint32_t i) __attribute__((always_inline)) {
        return load_kv<kind>(key[i / per_tile] + kv_bytes(kind, d * 16 + i % per_tile * lanes));
      });
  }
  for (uint32_t i = 0; i < parts; ++i) {
    Floats factor = all(a.scale * 1.44269504f), offset = all(0);
    if constexpr (kv_is_scaled(kind)) {
      const Floats scale = load(kv_key_scales(a.kv, g.kv_head, g.position(at + i / per_tile * 16)) + i % per_tile * lanes);
      if constexpr (kind == KvKind::i4) offset = multiply(factor, low_bf16(scale));
      factor = multiply(factor, kind == KvKind::i4 ? high_bf16(scale) : scale);
    }
    for (uint32_t t = 0; t < T; ++t) {
      Floats score = multiply(sums[t][i], factor);
      if constexpr (kind == KvKind::i4) score = fma(offset, all(g.q_sum[first + t]), score);
      store(g.weights[first + t] + at + i * lanes, score);
    }
  }
  if constexpr (kind == KvKind::i4)
    for (uint32_t t = 0; t < T; ++t)
      for (uint32_t i = 0; i < tiles; ++i) add_first(g.weights[first + t] + at + i * 16);
}

// Of all positions some query of the group sees.
template <KvKind kind>
GPTQ_INLINE void score_all(const AttentionArgs& a, Ahead& ahead, Group& g) {
  for (uint32_t at = g.begin[0] / 16 * 16; at < g.end[g.n - 1]; at += 32) {
    const bool pair = at + 16 < g.end[g.n - 1];
    for_queries(g.n, [&]<uint32_t T>(uint32_t first, Count<T>) {
      ahead.keys(1, g.n, T);
      if constexpr (T * 16 / lanes <= 4) {  // both tiles at once keep the multipliers busy
        if (pair) ahead.keys(1, g.n, T);
        if (pair) return score<kind, T, 2>(a, at, first, g);
      }
      score<kind, T, 1>(a, at, first, g);
      if (pair) ahead.keys(1, g.n, T);
      if (pair) score<kind, T, 1>(a, at + 16, first, g);
    });
  }
}

// Soft cap, then ALiBi: what lies between a score and its logit, in units of log2(e) as scores are. Of whole tiles.
void bend(const AttentionArgs& a, uint64_t query, uint32_t from, uint32_t to, const Group& g, float* scores) {
  if (a.softcap != 0) {
    const float cap = a.softcap * 1.44269504f;
    for (uint32_t j = from; j < to; j += lanes) {
      const Floats part = multiply(load(scores + j), all(1 / cap));
      store(scores + j, multiply(tanh_of(part), all(cap)));
    }
  }
  if (!a.alibi_slopes) return;
  alignas(64) static const float steps[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Floats slope = all(a.alibi_slopes[query % a.n_heads] * 1.44269504f);
  const auto position = static_cast<int32_t>(a.first_position + query / a.n_heads);
  for (uint32_t j = from; j < to; j += lanes) {
    const auto tile = static_cast<int32_t>(g.position(j / 16 * 16));
    const Floats distance = add(all(static_cast<float>(tile - position)), load(steps + j % 16));
    store(scores + j, fma(slope, distance, load(scores + j)));
  }
}

// Scores begin .. end - 1 into weights, times the values' scales, and zeros around them up to whole tiles.
void weigh(const AttentionArgs& a, uint64_t query, uint32_t t, Group& g) {
  const KvKind kind = a.kv.kinds.values;
  float* weights = g.weights[t];
  const uint32_t begin = g.begin[t], end = g.end[t], from = begin / 16 * 16, to = (end + 15) / 16 * 16;
  if (a.softcap != 0 || a.alibi_slopes) bend(a, query, from, to, g, weights);
  for (uint32_t j = from; j < begin; ++j) weights[j] = -__builtin_inff();
  for (uint32_t j = end; j < to; ++j) weights[j] = -__builtin_inff();
  Floats most = load(weights + from);
  for (uint32_t j = from; j < to; j += lanes) most = larger(most, load(weights + j));
  const float max = largest_of(most);
  Floats sum = all(0), offset = all(0);
  for (uint32_t tile = from; tile < to; tile += 16) {
    const float* scales = kv_is_scaled(kind) ? kv_value_scales(a.kv, g.kv_head, g.position(tile)) : nullptr;
    float seen[16];
    if (scales && (tile < begin || tile + 16 > end)) {  // whatever the others hold
      for (uint32_t j = 0; j < 16; ++j) seen[j] = tile + j >= begin && tile + j < end ? scales[j] : 0;
      scales = seen;
    }
    for (uint32_t j = 0; j < 16; j += lanes) {
      Floats weight = exp2_negative(subtract(load(weights + tile + j), all(max)));
      sum = add(sum, weight);
      if (kind == KvKind::i4) {
        const Floats scale = load(scales + j);
        offset = fma(weight, low_bf16(scale), offset);
        weight = multiply(weight, high_bf16(scale));
      } else if (scales) {
        weight = multiply(weight, load(scales + j));
      }
      store(weights + tile + j, weight);
    }
  }
  g.max[t] = max;
  g.total[t] = sum_of(sum);
  g.offset[t] = sum_of(offset);
}

// parts * lanes elements of a row of values; of int4 their codes.
template <KvKind kind, uint32_t parts>
GPTQ_INLINE void load_values(const std::byte* p, Floats (&v)[parts]) {
  constexpr uint32_t least = 16 / lanes;
  if constexpr (kind == KvKind::i4) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < parts; i += least) load_16_codes(p + i / least * 8, v + i);
  } else {
#pragma GCC unroll 8
    for (uint32_t i = 0; i < parts; ++i) v[i] = load_kv<kind>(p + kv_bytes(kind, i * lanes));
  }
}

// sums[t] += weights[t] * values of `rows` rows, for parts * lanes elements.
template <KvKind kind, uint32_t T, uint32_t parts>
GPTQ_INLINE void add_columns(const std::byte* values, uint64_t row_bytes, uint32_t rows, const float* const (&weights)[T], float* const (&sums)[T],
                             uint32_t d) {
  Floats acc[T][parts];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (uint32_t i = 0; i < parts; ++i) acc[t][i] = load(sums[t] + d + i * lanes);
  values += kv_bytes(kind, d);
  for (uint64_t j = 0; j < rows; ++j, values += row_bytes) {
    Floats v[parts];
    load_values<kind>(values, v);
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const Floats weight = all(weights[t][j]);
#pragma GCC unroll 8
      for (uint32_t i = 0; i < parts; ++i) acc[t][i] = fma(weight, v[i], acc[t][i]);
    }
  }
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (uint32_t i = 0; i < parts; ++i) store(sums[t] + d + i * lanes, acc[t][i]);
}

// Rows begin .. end - 1 of the block, which lie in one page.
template <KvKind kind, uint32_t T>
void add_values(const AttentionArgs& a, uint32_t begin, uint32_t end, uint32_t first, Group& g) {
  constexpr uint32_t least = 16 / lanes, wide = T > 2 ? (least > 2 ? least : 2) : (least > 2 ? 2 * least : 4);
  const uint32_t row = kv_row_elements(a.kv.value_dim);
  const uint64_t row_bytes = kv_bytes(kind, row);
  const float* weights[T];
  float* sums[T];
  for (uint32_t t = 0; t < T; ++t) {
    weights[t] = g.weights[first + t] + begin;
    sums[t] = g.sums[first + t];
  }
  const std::byte* values = kv_value(a.kv, g.kv_head, g.position(begin));
  uint32_t d = 0;
  for (; d + wide * lanes <= row; d += wide * lanes) add_columns<kind, T, wide>(values, row_bytes, end - begin, weights, sums, d);
  for (; d < row; d += 16) add_columns<kind, T, least>(values, row_bytes, end - begin, weights, sums, d);
}

// What all T queries see is read once, what is before and behind for each query that sees it.
template <KvKind kind, uint32_t T>
GPTQ_INLINE void add_seen_values(const AttentionArgs& a, uint32_t from, uint32_t to, uint32_t first, Group& g) {
  const uint32_t last = first + T - 1, begin = clamp(g.begin[last], from, to), end = clamp(g.end[first], from, to);
  const bool common = begin < end;
  for (uint32_t t = first; t <= last; ++t) {
    const uint32_t own = clamp(g.begin[t], from, to), stop = common ? begin : clamp(g.end[t], from, to);
    if (own < stop) add_values<kind, 1>(a, own, stop, t, g);
  }
  if (!common) return;
  add_values<kind, T>(a, begin, end, first, g);
  for (uint32_t t = first; t <= last; ++t) {
    const uint32_t own = clamp(g.end[t], from, to);
    if (end < own) add_values<kind, 1>(a, end, own, t, g);
  }
}

template <KvKind kind>
GPTQ_INLINE void add_all_values(const AttentionArgs& a, Ahead& ahead, Group& g) {
  const uint32_t row = kv_row_elements(a.kv.value_dim), row_bytes = static_cast<uint32_t>(kv_bytes(kind, row));
  const uint32_t rows = clamp(value_bytes / row_bytes / 16 * 16, 16, attention_block);
  for (uint32_t t = 0; t < g.n; ++t) g.sums[t] = g.sum_rows + t * row;
  memset(g.sum_rows, 0, g.n * row * sizeof(float));
  for (uint32_t from = g.begin[0] / 16 * 16, to; from < g.end[g.n - 1]; from = to) {
    const uint32_t in_page = a.kv.page_tokens - g.position(from) % a.kv.page_tokens;
    to = from + (in_page < rows ? in_page : rows);
    for_queries(g.n, [&]<uint32_t T>(uint32_t first, Count<T>) {
      ahead.values((to - from) / 16, g.n, T);
      add_seen_values<kind, T>(a, from, to, first, g);
    });
  }
  if constexpr (kind == KvKind::i4)
    for (uint32_t t = 0; t < g.n; ++t)
      for (uint32_t d = 0; d < row; d += lanes) store(g.sums[t] + d, add(load(g.sums[t] + d), all(g.offset[t])));
}

// The group with what its queries have so far, or into partials.
GPTQ_INLINE void attend(const AttentionArgs& a, const uint64_t* query, Ahead& ahead, Group& g, Running* running) {
  const uint32_t dim = a.kv.value_dim;
  with_kv_kind(a.kv.kinds.keys, [&]<KvKind kind>() { score_all<kind>(a, ahead, g); });
  for (uint32_t t = 0; t < g.n; ++t)
    if (g.begin[t] < g.end[t]) weigh(a, query[t], t, g);
  with_kv_kind(a.kv.kinds.values, [&]<KvKind kind>() { add_all_values<kind>(a, ahead, g); });
  for (uint32_t t = 0; t < g.n; ++t) {
    if (g.begin[t] >= g.end[t]) continue;
    if (!a.partials) {
      merge(a.out + query[t] * dim, running[t], g.sums[t], g.max[t], g.total[t], dim);
      continue;
    }
    float* partial = a.partials + (g.block - a.first_block) * a.block_stride + query[t] * (dim + 2);
    memcpy(partial, g.sums[t], dim * sizeof(float));
    partial[dim] = g.max[t];
    partial[dim + 1] = g.total[t];
  }
}

float sum_row(const float* x, uint32_t n) {
  Floats sum = all(0);
  uint32_t d = 0;
  for (; d + lanes <= n; d += lanes) sum = add(sum, load(x + d));
  return sum_of(add(sum, load_part(x + d, n - d)));
}

// Queries first .. last - 1 of a KV head, counted token by token, in blocks begin .. end - 1.
void attend_blocks(const AttentionArgs& a, uint32_t kv_head, uint64_t first, uint64_t last, uint32_t begin, uint32_t end, Running* running) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  Ahead ahead(a, kv_head, begin, end, a.first_position + static_cast<uint32_t>((last - 1) / heads_per_kv)), none;
  Group g;
  g.kv_head = kv_head;
  for (g.block = begin; g.block < end; ++g.block)
    for (uint64_t index = first; index < last; index += g.n) {
      uint64_t query[group_queries];
      g.n = last - index < group_queries ? static_cast<uint32_t>(last - index) : group_queries;
      for (uint32_t t = 0; t < g.n; ++t) {
        const uint64_t i = (index + t) / heads_per_kv;
        const uint32_t position = a.first_position + static_cast<uint32_t>(i), start = g.position(0);
        query[t] = i * a.n_heads + kv_head * heads_per_kv + (index + t) % heads_per_kv;
        g.q[t] = a.q + query[t] * a.kv.key_dim;
        if (a.kv.kinds.keys == KvKind::i4) g.q_sum[t] = sum_row(g.q[t], a.kv.key_dim);
        g.begin[t] = clamp(first_seen(position, a.window, a.chunk), start, start + attention_block) - start;
        g.end[t] = clamp(position + 1, start, start + attention_block) - start;
      }
      if (g.begin[0] < g.end[g.n - 1]) attend(a, query, index == first ? ahead : none, g, running + (index - first));
    }
}

void attend_all(const AttentionArgs& a) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  const uint64_t queries = uint64_t{a.m} * heads_per_kv;
  for (uint32_t kv_head = a.first_kv_head; kv_head < a.last_kv_head; ++kv_head)
    for (uint64_t first = 0, last; first < queries; first = last) {
      last = queries - first < queries_together ? queries : first + queries_together;
      Running running[queries_together];
      if (a.partials) {
        attend_blocks(a, kv_head, first, last, a.first_block, a.last_block, running);
        continue;
      }
      const uint32_t first_position = a.first_position + static_cast<uint32_t>(first / heads_per_kv);
      const uint32_t last_position = a.first_position + static_cast<uint32_t>((last - 1) / heads_per_kv);
      const uint32_t begin = first_seen(first_position, a.window, a.chunk) / attention_block, end = last_position / attention_block + 1;
      const uint32_t dim = a.kv.value_dim;
      const auto head_of = [&](uint64_t index) { return kv_head * heads_per_kv + index % heads_per_kv; };
      const auto out_of = [&](uint64_t index) { return a.out + (index / heads_per_kv * a.n_heads + head_of(index)) * dim; };
      for (uint64_t index = first; index < last; ++index) memset(out_of(index), 0, dim * sizeof(float));
      attend_blocks(a, kv_head, first, last, begin, end, running);
      for (uint64_t index = first; index < last; ++index)
        finish(out_of(index), running[index - first], a.sinks, head_of(index), dim);
    }
}

}  // namespace
}  // namespace gptq::kernels
