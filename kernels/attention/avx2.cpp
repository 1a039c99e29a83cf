// SPDX-License-Identifier: Apache-2.0
// Attention page by page with a running maximum and sum. Up to four queries of a KV head (its heads, then the next token's) share each
// key and value row they read. Pages begin at fixed positions, so a query's result does not depend on the queries beside it.
#include "kernels/element.h"
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t max_page_tokens = 256;

// T queries in order of position. begin, end: the positions each sees, first as such, then within the page at hand.
template <int T>
struct Queries {
  const float* q[T];
  float* out[T];
  uint32_t first[T], last[T];
  uint32_t begin[T], end[T];
  float max[T], total[T];
  alignas(32) float scores[T][max_page_tokens + 8];
};

// scores of `keys` consecutive keys for T queries.
template <Kind kind, int T, int keys>
GPTQ_INLINE void score_keys(const std::byte* const (&key)[keys], const float* const (&q)[T], uint32_t head_dim, float (&scores)[T][keys]) {
  constexpr int n = T * keys;
  __m256 acc[n];
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) acc[i] = _mm256_setzero_ps();
  uint32_t d = 0;
  for (; d + 8 <= head_dim; d += 8)
#pragma GCC unroll 4
    for (int k = 0; k < keys; ++k) {
      const __m256 row = load8<kind>(key[k], d);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) acc[t * keys + k] = _mm256_fmadd_ps(row, _mm256_loadu_ps(q[t] + d), acc[t * keys + k]);
    }
  if (const uint32_t rest = head_dim - d)
    for (int k = 0; k < keys; ++k) {
      const __m256 row = load_some<kind>(key[k], d, rest);
      for (int t = 0; t < T; ++t) acc[t * keys + k] = _mm256_fmadd_ps(row, load_some<Kind::f32>(q[t], d, rest), acc[t * keys + k]);
    }
  float sums[(n + 3) / 4 * 4];
#pragma GCC unroll 2
  for (int i = 0; i < n; i += 4) _mm_storeu_ps(sums + i, sum_lanes(acc[i], acc[(i + 1) % n], acc[(i + 2) % n], acc[(i + 3) % n]));
  memcpy(scores, sums, sizeof scores);
}

template <Kind kind, int T>
void score_page(const AttentionArgs& a, const std::byte* page, uint32_t begin, uint32_t end, Queries<T>& s) {
  constexpr int keys = T <= 2 ? 4 : 2;
  const uint64_t row_bytes = uint64_t{a.kv.head_dim} * (bits_of(kind) / 8);
  for (uint32_t j = begin; j < end; j += keys) {
    const std::byte* key[keys];
    for (uint32_t k = 0; k < keys; ++k) key[k] = page + (j + k < end ? j + k : end - 1) * row_bytes;
    float scores[T][keys];
    score_keys<kind, T, keys>(key, s.q, a.kv.head_dim, scores);
    for (int t = 0; t < T; ++t)
      for (uint32_t k = 0; k < keys; ++k) s.scores[t][j + k] = scores[t][k] * a.scale;
  }
}

// Turns the scores [begin, end) into weights, and brings max, total and out to the new maximum.
void weigh(float* scores, uint32_t begin, uint32_t end, float& max, float& total, float* out, uint32_t head_dim) {
  const __m256 least = _mm256_set1_ps(-__builtin_inff());
  const uint32_t count = end - begin, rest = count % 8, whole = begin + count - rest;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256 live = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rest)), lane));
  const __m256 tail = _mm256_blendv_ps(least, _mm256_loadu_ps(scores + whole), live);
  __m256 maxes = tail;
  for (uint32_t j = begin; j < whole; j += 8) maxes = _mm256_max_ps(maxes, _mm256_loadu_ps(scores + j));
  const float page_max = max_lanes(maxes), new_max = page_max > max ? page_max : max;
  const __m256 shift = _mm256_set1_ps(new_max);
  __m256 sum = _mm256_setzero_ps();
  for (uint32_t j = begin; j < whole; j += 8) {
    const __m256 p = exp8(_mm256_sub_ps(_mm256_loadu_ps(scores + j), shift));
    _mm256_storeu_ps(scores + j, p);
    sum = _mm256_add_ps(sum, p);
  }
  const __m256 p = _mm256_and_ps(exp8(_mm256_sub_ps(tail, shift)), live);
  store_some(scores + whole, p, rest);
  sum = _mm256_add_ps(sum, p);
  if (new_max > max) {
    const __m256 factor = exp8(_mm256_sub_ps(_mm256_set1_ps(max), shift));
    total *= _mm256_cvtss_f32(factor);
    for (uint32_t d = 0; d + 8 <= head_dim; d += 8) _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_loadu_ps(out + d), factor));
    for (uint32_t d = head_dim / 8 * 8; d < head_dim; ++d) out[d] *= _mm256_cvtss_f32(factor);
    max = new_max;
  }
  total += sum_lanes(sum);
}

// out[t][d .. d + 8 * vectors) += weights * values of the rows [begin, end).
template <Kind kind, int T, int vectors>
GPTQ_INLINE void add_columns(const std::byte* values, uint64_t row_bytes, uint32_t begin, uint32_t end, const float* const (&weights)[T],
                             float* const (&out)[T], uint32_t d) {
  __m256 acc[T][vectors];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) acc[t][v] = _mm256_loadu_ps(out[t] + d + v * 8);
  for (uint32_t j = begin; j < end; ++j) {
    __m256 value[vectors];
#pragma GCC unroll 4
    for (uint32_t v = 0; v < vectors; ++v) value[v] = load8<kind>(values + j * row_bytes, d + v * 8);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const __m256 weight = _mm256_broadcast_ss(weights[t] + j);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) acc[t][v] = _mm256_fmadd_ps(weight, value[v], acc[t][v]);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) _mm256_storeu_ps(out[t] + d + v * 8, acc[t][v]);
}

template <Kind kind, int T>
void add_values(const std::byte* values, uint32_t head_dim, uint32_t begin, uint32_t end, const float* const (&weights)[T],
                float* const (&out)[T]) {
  constexpr int vectors = T <= 2 ? 4 : 2;
  const uint64_t row_bytes = uint64_t{head_dim} * (bits_of(kind) / 8);
  uint32_t d = 0;
  for (; d + vectors * 8 <= head_dim; d += vectors * 8) add_columns<kind, T, vectors>(values, row_bytes, begin, end, weights, out, d);
  for (; d + 8 <= head_dim; d += 8) add_columns<kind, T, 1>(values, row_bytes, begin, end, weights, out, d);
  const uint32_t rest = head_dim - d;
  for (int t = 0; rest && t < T; ++t) {
    __m256 acc = load_some<Kind::f32>(out[t], d, rest);
    for (uint32_t j = begin; j < end; ++j)
      acc = _mm256_fmadd_ps(_mm256_broadcast_ss(weights[t] + j), load_some<kind>(values + j * row_bytes, d, rest), acc);
    store_some(out[t] + d, acc, rest);
  }
}

// The rows all queries see are read once, those before and behind for each query that sees them.
template <Kind kind, int T>
void add_page(const std::byte* values, uint32_t head_dim, const Queries<T>& s) {
  const float* weights[T];
  for (int t = 0; t < T; ++t) weights[t] = s.scores[t];
  const auto add_one = [&](int t, uint32_t begin, uint32_t end) {
    if (begin < end) add_values<kind, 1>(values, head_dim, begin, end, {weights[t]}, {s.out[t]});
  };
  const uint32_t begin = s.begin[T - 1], end = s.end[0];
  if (begin >= end) {
    for (int t = 0; t < T; ++t) add_one(t, s.begin[t], s.end[t]);
    return;
  }
  for (int t = 0; t < T; ++t) add_one(t, s.begin[t], begin);
  add_values<kind, T>(values, head_dim, begin, end, weights, s.out);
  for (int t = 0; t < T; ++t) add_one(t, end, s.end[t]);
}

template <Kind kind, int T>
void attend_page(const AttentionArgs& a, uint32_t kv_head, uint32_t page, Queries<T>& s) {
  const uint32_t position = page * a.kv.page_tokens;
  for (int t = 0; t < T; ++t) {
    const uint32_t end = s.last[t] + 1 < position ? 0 : s.last[t] + 1 - position;
    s.begin[t] = s.first[t] < position ? 0 : s.first[t] - position;
    s.end[t] = end < a.kv.page_tokens ? end : a.kv.page_tokens;
  }
  const std::byte* keys = a.kv.base + kv_row(a.kv, kv_head, position);
  score_page<kind, T>(a, keys, s.begin[0], s.end[T - 1], s);
  for (int t = 0; t < T; ++t)
    if (s.begin[t] < s.end[t]) weigh(s.scores[t], s.begin[t], s.end[t], s.max[t], s.total[t], s.out[t], a.kv.head_dim);
  add_page<kind, T>(keys + a.kv.value_offset, a.kv.head_dim, s);
}

// Queries `index`.. of a KV head: index / heads_per_kv is the token.
template <Kind kind, int T>
void attend(const AttentionArgs& a, uint32_t kv_head, uint64_t index) {
  const uint32_t heads_per_kv = a.n_heads / a.kv.n_kv_heads;
  Queries<T> s;
  for (uint32_t t = 0; t < T; ++t) {
    const uint64_t i = (index + t) / heads_per_kv, head = kv_head * heads_per_kv + (index + t) % heads_per_kv;
    s.q[t] = a.q + (i * a.n_heads + head) * a.kv.head_dim;
    s.out[t] = a.out + (i * a.n_heads + head) * a.kv.head_dim;
    s.last[t] = a.first_position + static_cast<uint32_t>(i);
    s.first[t] = a.window && s.last[t] >= a.window ? s.last[t] - a.window + 1 : 0;
    s.max[t] = -__builtin_inff();
    s.total[t] = 0;
    memset(s.out[t], 0, a.kv.head_dim * sizeof(float));
  }
  const uint32_t last_page = s.last[T - 1] / a.kv.page_tokens;
  for (uint32_t page = s.first[0] / a.kv.page_tokens; page <= last_page; ++page) attend_page<kind, T>(a, kv_head, page, s);
  for (int t = 0; t < T; ++t)
    for (uint32_t d = 0; d < a.kv.head_dim; ++d) s.out[t][d] /= s.total[t];
}

template <Kind kind>
void attend_all(const AttentionArgs& a) {
  const uint64_t queries = uint64_t{a.m} * (a.n_heads / a.kv.n_kv_heads);
  for (uint32_t kv_head = a.first_kv_head; kv_head < a.last_kv_head; ++kv_head) {
    uint64_t index = 0;
    for (; index + 4 <= queries; index += 4) attend<kind, 4>(a, kv_head, index);
    if (queries - index == 3) attend<kind, 3>(a, kv_head, index);
    if (queries - index == 2) attend<kind, 2>(a, kv_head, index);
    if (queries - index == 1) attend<kind, 1>(a, kv_head, index);
  }
}

}  // namespace

void attention_avx2(const AttentionArgs& a) {
  if (a.kv.f32) return attend_all<Kind::f32>(a);
  attend_all<Kind::f16>(a);
}

}  // namespace gptq::kernels
