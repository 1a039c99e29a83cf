// SPDX-License-Identifier: Apache-2.0
// Attention of many heads over one row a token, for any vector width. Rows become float32 once for a group of queries. A score holds
// elements of the row in its lanes, summed in order; outputs hold elements of the value, summed over the positions of a block in
// order: what a query gets depends on nothing but its position.
#pragma once
#include "kernels/attention/groups.h"
#include "kernels/attention/merge.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t latent_queries = 16;     // share rows
constexpr uint32_t at_once = lanes == 8 ? 3 : 4;  // queries, as many as the registers hold sums of four vectors for
constexpr uint32_t value_columns = 4 * lanes, value_rows = 64;  // added at a time
constexpr uint32_t row_floats = 8 * largest_head;               // of rows that became float32, in half of L1
static_assert(value_columns * value_rows <= row_floats);

// Queries in order of position, in one block. end: what each sees of it.
struct LatentGroup {
  uint32_t n, block;
  const float* q[latent_queries];
  uint32_t end[latent_queries];
  float max[latent_queries], total[latent_queries];
  alignas(64) float weights[latent_queries][attention_block];
  alignas(64) float sums[latent_queries * largest_head];
  alignas(64) float rows[row_floats];
  uint32_t position(uint32_t at) const { return block * attention_block + at; }
  uint32_t last_end() const { return end[n - 1]; }
};

// Calls f(first, Count<n>) for the queries of a group, as many as can be at once.
template <class F>
GPTQ_INLINE void for_latent_queries(uint32_t n, F f) {
  uint32_t first = 0;
  for (; first + at_once <= n && (at_once == 4 || n - first != 4); first += at_once) f(first, Count<at_once>());
  if constexpr (at_once == 3) for (; first + 2 <= n; first += 2) f(first, Count<2>());
  for (; first < n; ++first) f(first, Count<1>());
}

// Elements begin .. begin + columns - 1 of rows from .. to - 1 of the block into g.rows. Whole vectors: rows are padded.
template <KvKind kind>
void take_rows(const LatentAttentionArgs& a, uint32_t from, uint32_t to, uint32_t begin, uint32_t columns, LatentGroup& g) {
  float* out = g.rows;
  for (uint32_t at = from; at < to; ++at, out += columns) {
    const std::byte* row = latent_row(a.kv, g.position(at)) + kv_bytes(kind, begin);
    for (uint32_t d = 0; d < columns; d += lanes) store(out + d, load_kv<kind>(row + kv_bytes(kind, d)));
  }
}

// Rows that are taken next: the work on those before is so long that a processor does not look ahead that far.
template <KvKind kind>
GPTQ_INLINE void ask_for(const LatentAttentionArgs& a, uint32_t from, uint32_t to, uint32_t row, const LatentGroup& g) {
  for (uint32_t at = from; at < to; ++at) {
    const std::byte* line = latent_row(a.kv, g.position(at));
    for (uint64_t byte = 0; byte < kv_bytes(kind, row); byte += 64) prefetch(line + byte);
  }
}

// Dot products of four rows with T queries.
template <uint32_t T>
GPTQ_INLINE void score_rows(const LatentAttentionArgs& a, const float* rows, uint32_t row, uint32_t at, uint32_t first, LatentGroup& g) {
  const uint32_t whole = a.kv.width / lanes * lanes;
  const float* query[T];
  for (uint32_t t = 0; t < T; ++t) query[t] = g.q[first + t];
  Floats sums[T][4];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; ++i) sums[t][i] = all(0);
  const auto add_columns = [&](uint64_t d, auto load_query) __attribute__((always_inline)) {
    Floats k[4];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; ++i) k[i] = load(rows + uint64_t{i} * row + d);
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const Floats q = load_query(query[t] + d);
#pragma GCC unroll 4
      for (uint32_t i = 0; i < 4; ++i) sums[t][i] = fma(q, k[i], sums[t][i]);
    }
  };
  for (uint64_t d = 0; d < whole; d += lanes) add_columns(d, [](const float* q) { return load(q); });
  if (whole < a.kv.width) add_columns(whole, [&](const float* q) { return load_part(q, a.kv.width - whole); });
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t) sums_of(sums[t][0], sums[t][1], sums[t][2], sums[t][3], g.weights[first + t] + at);
}

constexpr uint32_t smaller_of(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Of all positions some query of the group sees.
template <KvKind kind>
void score_all(const LatentAttentionArgs& a, LatentGroup& g) {
  const uint32_t row = kv_row_elements(a.kv.width), at_a_time = row_floats / row / 4 * 4, end = (g.last_end() + 3) / 4 * 4;
  for (uint32_t from = 0, to; from < end; from = to) {
    to = smaller_of(from + at_a_time, end);
    take_rows<kind>(a, from, to, 0, row, g);
    ask_for<kind>(a, to, smaller_of(to + at_a_time, end), row, g);
    for_latent_queries(g.n, [&]<uint32_t T>(uint32_t first, Count<T>) {
      for (uint32_t at = from; at < to; at += 4) score_rows<T>(a, g.rows + uint64_t{at - from} * row, row, at, first, g);
    });
  }
}

// Dot products into weights, and zeros behind them up to whole tiles of 16.
template <KvKind kind>
void weigh(const LatentAttentionArgs& a, uint32_t t, LatentGroup& g) {
  float* weights = g.weights[t];
  const uint32_t end = g.end[t], to = (end + 15) / 16 * 16;
  const auto scales = [&](uint32_t at) { return load(latent_scale(a.kv, g.position(at / 16 * 16)) + at % 16); };
  for (uint32_t j = 0; j < to; j += lanes) {
    const Floats factor = all(a.scale * 1.44269504f);
    store(weights + j, multiply(load(weights + j), kind == KvKind::i8 ? multiply(factor, scales(j)) : factor));
  }
  for (uint32_t j = end; j < to; ++j) weights[j] = -__builtin_inff();
  Floats most = load(weights), sum = all(0);
  for (uint32_t j = 0; j < to; j += lanes) most = larger(most, load(weights + j));
  const float max = largest_of(most);
  for (uint32_t j = 0; j < to; j += lanes) {
    const Floats weight = exp2_negative(subtract(load(weights + j), all(max)));
    sum = add(sum, weight);
    store(weights + j, kind == KvKind::i8 ? multiply(weight, scales(j)) : weight);
  }
  g.max[t] = max;
  g.total[t] = sum_of(sum);
}

// sums[t] += weights[t] * the rows taken, for parts * lanes elements of T queries.
template <uint32_t T, uint32_t parts>
GPTQ_INLINE void add_columns(const float* rows, uint32_t row, uint32_t n, const float* const (&weights)[T], float* const (&sums)[T]) {
  Floats acc[T][parts];
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t i = 0; i < parts; ++i) acc[t][i] = load(sums[t] + i * lanes);
  for (uint64_t j = 0; j < n; ++j, rows += row) {
    Floats v[parts];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < parts; ++i) v[i] = load(rows + i * lanes);
#pragma GCC unroll 4
    for (uint32_t t = 0; t < T; ++t) {
      const Floats weight = all(weights[t][j]);
#pragma GCC unroll 4
      for (uint32_t i = 0; i < parts; ++i) acc[t][i] = fma(weight, v[i], acc[t][i]);
    }
  }
#pragma GCC unroll 4
  for (uint32_t t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (uint32_t i = 0; i < parts; ++i) store(sums[t] + i * lanes, acc[t][i]);
}

// Rows begin .. end - 1 of the block, of which g.rows holds those from `from`, in columns of T queries' sums.
template <uint32_t T>
GPTQ_INLINE void add_rows(LatentGroup& g, uint32_t from, uint32_t begin, uint32_t end, uint32_t column, uint32_t columns, uint32_t sum_row, uint32_t first) {
  const float* weights[T];
  float* sums[T];
  for (uint32_t t = 0; t < T; ++t) {
    weights[t] = g.weights[first + t] + begin;
    sums[t] = g.sums + (first + t) * sum_row + column;
  }
  const float* rows = g.rows + uint64_t{begin - from} * columns;
  if (columns == value_columns) return add_columns<T, 4>(rows, columns, end - begin, weights, sums);
  for (uint32_t d = 0; d < columns; d += lanes) {
    add_columns<T, 1>(rows + d, columns, end - begin, weights, sums);
    for (float*& sum : sums) sum += lanes;
  }
}

// What all queries at once see first, then what is behind for each that sees it.
template <KvKind kind>
void add_values(const LatentAttentionArgs& a, LatentGroup& g) {
  const uint32_t sum_row = kv_row_elements(a.kv.rank);
  memset(g.sums, 0, g.n * sum_row * sizeof(float));
  for (uint32_t column = 0; column < a.kv.rank; column += value_columns) {
    const uint32_t columns = smaller_of(value_columns, sum_row - column);
    for (uint32_t from = 0, to; from < g.last_end(); from = to) {
      to = smaller_of(from + value_rows, g.last_end());
      take_rows<kind>(a, from, to, column, columns, g);
      for_latent_queries(g.n, [&]<uint32_t T>(uint32_t first, Count<T>) {
        const uint32_t common = clamp(g.end[first], from, to);
        if (from < common) add_rows<T>(g, from, from, common, column, columns, sum_row, first);
        for (uint32_t t = first; t < first + T; ++t)
          if (const uint32_t own = clamp(g.end[t], from, to); common < own) add_rows<1>(g, from, common, own, column, columns, sum_row, t);
      });
    }
  }
}

struct Queries {
  uint64_t first, last;  // counted token by token over the heads of the range
};

struct Query {
  uint64_t index;  // over all heads
  uint32_t position;
};

GPTQ_INLINE Query query_of(const LatentAttentionArgs& a, uint64_t at) {
  const uint32_t heads = a.last_head - a.first_head, i = static_cast<uint32_t>(at / heads);
  return {uint64_t{i} * a.n_heads + a.first_head + at % heads, a.first_position + i};
}

// Queries from .. from + g.n - 1 in one block, put together with what they have so far, or into partials.
template <KvKind kind>
void attend(const LatentAttentionArgs& a, uint64_t from, LatentGroup& g, Running* running) {
  const uint32_t rank = a.kv.rank, start = g.position(0);
  for (uint32_t t = 0; t < g.n; ++t) {
    const Query query = query_of(a, from + t);
    g.q[t] = a.q + query.index * a.kv.width;
    g.end[t] = clamp(query.position + 1, start, start + attention_block) - start;
  }
  if (!g.last_end()) return;
  score_all<kind>(a, g);
  for (uint32_t t = 0; t < g.n; ++t)
    if (g.end[t]) weigh<kind>(a, t, g);
  add_values<kind>(a, g);
  for (uint32_t t = 0; t < g.n; ++t) {
    if (!g.end[t]) continue;
    const uint64_t index = query_of(a, from + t).index;
    const float* sums = g.sums + t * kv_row_elements(rank);
    if (!a.partials) {
      merge(a.out + index * rank, running[t], sums, g.max[t], g.total[t], rank);
      continue;
    }
    float* partial = a.partials + (g.block - a.first_block) * a.block_stride + index * (rank + 2);
    memcpy(partial, sums, rank * sizeof(float));
    partial[rank] = g.max[t];
    partial[rank + 1] = g.total[t];
  }
}

template <KvKind kind>
void attend_blocks(const LatentAttentionArgs& a, const Queries& queries, uint32_t begin, uint32_t end, Running* running) {
  LatentGroup g;
  for (g.block = begin; g.block < end; ++g.block)
    for (uint64_t at = queries.first; at < queries.last; at += g.n) {
      g.n = queries.last - at < latent_queries ? static_cast<uint32_t>(queries.last - at) : latent_queries;
      attend<kind>(a, at, g, running + (at - queries.first));
    }
}

template <KvKind kind>
void attend_all(const LatentAttentionArgs& a) {
  const uint64_t n = uint64_t{a.m} * (a.last_head - a.first_head);
  const uint32_t rank = a.kv.rank;
  for (Queries queries = {0, 0}; queries.first < n; queries.first = queries.last) {
    queries.last = n - queries.first < queries_together ? n : queries.first + queries_together;
    Running running[queries_together];
    if (a.partials) {
      attend_blocks<kind>(a, queries, a.first_block, a.last_block, running);
      continue;
    }
    for (uint64_t at = queries.first; at < queries.last; ++at) memset(a.out + query_of(a, at).index * rank, 0, rank * sizeof(float));
    attend_blocks<kind>(a, queries, 0, query_of(a, queries.last - 1).position / attention_block + 1, running);
    for (uint64_t at = queries.first; at < queries.last; ++at)
      finish(a.out + query_of(a, at).index * rank, running[at - queries.first], nullptr, 0, rank);
  }
}

GPTQ_INLINE void attend_any(const LatentAttentionArgs& a) {
  switch (a.kv.kind) {
    case KvKind::f16: return attend_all<KvKind::f16>(a);
    case KvKind::f32: return attend_all<KvKind::f32>(a);
    case KvKind::i8: return attend_all<KvKind::i8>(a);
    case KvKind::i4: return;  // no latent cache is
  }
}

}  // namespace
}  // namespace gptq::kernels
