// SPDX-License-Identifier: Apache-2.0
// The gated delta rule, for any vector width: a few columns of a head's state stay in the cache while many rows go over them.
//
// With S the state before a row, k and q as they are given and their lengths as factors, the row's results are
//   known = decay * k_scale * (S^T k);  change = beta * (v - known);  y = decay * q_scale * (S^T q) + (q . k) * change
// so that both products read the old state; S = decay * S + k outer k_scale * change is worked out together with the next row's products.
#pragma once
#include <math.h>

#include "kernels/vector_math.h"

namespace gptq::kernels {
namespace {

constexpr uint32_t delta_rows = 64;    // of one go
constexpr uint32_t delta_vectors = 4;  // of columns
constexpr uint32_t rows_ahead = 16;    // of the state, fetched while it comes from far

// What a head's rows have besides vectors.
struct DeltaRows {
  float decay[delta_rows], beta[delta_rows], q_scale[delta_rows], k_scale[delta_rows], qk[delta_rows];
};

// The arrays of one value head, from one row on.
struct DeltaHead {
  const float *q, *k, *v, *z;
  float* y;
};

GPTQ_INLINE DeltaHead delta_head(const DeltaArgs& a, uint64_t h, uint64_t row) {
  const uint64_t key = row * a.stride + h / (a.n_value_heads / a.n_key_heads) * a.key_dim, value = h * a.value_dim;
  return {.q = a.q + key,
          .k = a.k + key,
          .v = a.v + row * a.stride + value,
          .z = a.z + row * a.z_stride + value,
          .y = a.y + row * a.n_value_heads * a.value_dim + value};
}

GPTQ_INLINE float dot(const float* x, const float* y, uint32_t n) {
  const uint32_t rest = n % lanes, whole = n - rest;
  Floats sum = multiply(load_part(x + whole, rest), load_part(y + whole, rest));
  for (uint32_t j = 0; j < whole; j += lanes) sum = fma(load(x + j), load(y + j), sum);
  return sum_of(sum);
}

GPTQ_INLINE void prepare_rows(const DeltaArgs& a, uint64_t h, uint64_t row, uint32_t rows, DeltaRows& r) {
  const DeltaHead head = delta_head(a, h, row);
  float step[delta_rows] = {}, learn[delta_rows] = {};
  for (uint64_t i = 0; i < rows; ++i) {
    const float *q = head.q + i * a.stride, *k = head.k + i * a.stride;
    r.q_scale[i] = 1 / sqrtf((dot(q, q, a.key_dim) + 1e-6f) * static_cast<float>(a.key_dim));
    r.k_scale[i] = 1 / sqrtf(dot(k, k, a.key_dim) + 1e-6f);
    r.qk[i] = dot(q, k, a.key_dim) * r.q_scale[i] * r.k_scale[i];
    step[i] = a.a[(row + i) * a.gate_stride + h] + a.dt_bias[h];
    learn[i] = a.b[(row + i) * a.gate_stride + h];
  }
  for (uint32_t i = 0; i < rows; i += lanes) {
    store(r.decay + i, exp_of(multiply(all(-a.rate[h]), softplus_of(load(step + i)))));
    store(r.beta + i, sigmoid_of(load(learn + i)));
  }
}

// Columns of a state and what a row finds there.
template <uint32_t n>
struct Found {
  Floats by_k[n], by_q[n];
};

// Updates the state's columns for one row (change: NULL for none yet) and asks it for the next (k NULL: there is none).
template <uint32_t n, bool update, bool ask>
GPTQ_INLINE Found<n> sweep(const DeltaArgs& a, const float* from, float* to, uint32_t count, float decay, const float* old_k,
                           const Floats* change, const float* k, const float* q) {
  const auto get = [=](const float* p) { return count == lanes ? load(p) : load_part(p, count); };
  const auto put = [=](float* p, Floats v) { count == lanes ? store(p, v) : store_part(p, v, count); };
  Found<n> found;
#pragma GCC unroll 4
  for (uint32_t i = 0; i < n; ++i) found.by_k[i] = found.by_q[i] = all(0);
  for (uint64_t j = 0; j < a.key_dim; ++j) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < n; ++i) {
      Floats s = get(from + j * a.value_dim + i * lanes);
      if (!update) prefetch(from + (j + rows_ahead) * a.value_dim + i * lanes);
      if (update) {
        s = fma(all(old_k[j]), change[i], multiply(all(decay), s));
        put(to + j * a.value_dim + i * lanes, s);
      }
      if (ask) {
        found.by_k[i] = fma(all(k[j]), s, found.by_k[i]);
        found.by_q[i] = fma(all(q[j]), s, found.by_q[i]);
      }
    }
  }
  return found;
}

// n vectors of columns from d on (or, of one vector, the first count) through all rows.
template <uint32_t n>
GPTQ_INLINE void delta_columns(const DeltaArgs& a, const DeltaHead& head, const DeltaRows& r, uint32_t rows, const float* from, float* to,
                               uint32_t d, uint32_t count) {
  from += d;
  to += d;
  Found<n> found = sweep<n, false, true>(a, from, nullptr, count, 0, nullptr, nullptr, head.k, head.q);
  for (uint64_t i = 0; i < rows; ++i) {
    const float *k = head.k + i * a.stride, *v = head.v + i * a.stride + d;
    float* y = head.y + i * a.n_value_heads * a.value_dim + d;
    const Floats k_scale = all(r.k_scale[i]), known = all(r.decay[i] * r.k_scale[i]), asked = all(r.decay[i] * r.q_scale[i]);
    Floats change[n];
#pragma GCC unroll 4
    for (uint32_t j = 0; j < n; ++j) {
      const Floats value = count == lanes ? load(v + j * lanes) : load_part(v, count);
      const Floats missing = multiply(all(r.beta[i]), subtract(value, multiply(known, found.by_k[j])));
      const Floats out = fma(asked, found.by_q[j], multiply(all(r.qk[i]), missing));
      count == lanes ? store(y + j * lanes, out) : store_part(y, out, count);
      change[j] = multiply(k_scale, missing);
    }
    if (i + 1 < rows) found = sweep<n, true, true>(a, from, to, count, r.decay[i], k, change, k + a.stride, head.q + (i + 1) * a.stride);
    else sweep<n, true, false>(a, from, to, count, r.decay[i], k, change, nullptr, nullptr);
    from = to;
  }
}

// y = y / sqrt(mean(y^2) + eps) * weight * silu(z)
GPTQ_INLINE void gated_norm(const DeltaArgs& a, float* y, const float* z) {
  const uint32_t rest = a.value_dim % lanes, whole = a.value_dim - rest;
  const Floats factor = all(1 / sqrtf(dot(y, y, a.value_dim) / static_cast<float>(a.value_dim) + a.eps));
  const auto gated = [&](Floats v, Floats weight, Floats gate) { return multiply(multiply(multiply(v, factor), weight), silu_of(gate)); };
  for (uint32_t d = 0; d < whole; d += lanes) store(y + d, gated(load(y + d), load(a.weight + d), load(z + d)));
  if (rest) store_part(y + whole, gated(load_part(y + whole, rest), load_part(a.weight + whole, rest), load_part(z + whole, rest)), rest);
}

GPTQ_INLINE void delta_head_rows(const DeltaArgs& a, uint64_t h) {
  constexpr uint32_t wide = delta_vectors * lanes;
  const uint64_t size = uint64_t{a.key_dim} * a.value_dim;
  float* to = a.next_state + h * size;
  const float* from = a.state ? a.state + h * size : to;
  if (!a.state) memset(to, 0, size * sizeof *to);
  for (uint64_t row = 0; row < a.m; row += delta_rows) {
    const auto rows = static_cast<uint32_t>(a.m - row < delta_rows ? a.m - row : delta_rows);
    const DeltaHead head = delta_head(a, h, row);
    DeltaRows r;
    prepare_rows(a, h, row, rows, r);
    uint32_t d = 0;
    for (; d + wide <= a.value_dim; d += wide) delta_columns<delta_vectors>(a, head, r, rows, from, to, d, lanes);
    for (; d < a.value_dim; d += lanes) delta_columns<1>(a, head, r, rows, from, to, d, a.value_dim - d < lanes ? a.value_dim - d : lanes);
    for (uint64_t i = 0; i < rows; ++i) gated_norm(a, head.y + i * a.n_value_heads * a.value_dim, head.z + i * a.z_stride);
    from = to;
  }
}

GPTQ_INLINE void delta_heads(const DeltaArgs& a) {
  for (uint64_t h = a.first_head; h < a.last_head; ++h) delta_head_rows(a, h);
}

}  // namespace
}  // namespace gptq::kernels
