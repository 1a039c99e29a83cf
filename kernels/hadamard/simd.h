// SPDX-License-Identifier: Apache-2.0
// The Hadamard transform of heads, for any vector width.
#pragma once
#include <math.h>

#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

// Sums and differences of elements `step` apart, within a vector.
template <uint32_t step>
GPTQ_INLINE Floats sums_within(Floats v) {
  alignas(64) static const float one_each[] = {1, -1, 1, -1, 1, -1, 1, -1}, two_each[] = {1, 1, -1, -1, 1, 1, -1, -1}, four_each[] = {1, 1, 1, 1, -1, -1, -1, -1};
  return fma(v, load(step == 1 ? one_each : step == 2 ? two_each : four_each), exchange<step>(v));
}

GPTQ_INLINE Floats transform_vector(Floats v) {
  v = sums_within<2>(sums_within<1>(v));
  if constexpr (lanes == 8) v = sums_within<4>(v);
  return v;
}

void transform_few(float* x, uint32_t n) {  // less than a vector
  for (uint32_t step = 1; step < n; step *= 2)
    for (uint32_t i = 0; i < n; ++i)
      if (!(i & step)) {
        const float a = x[i], b = x[i + step];
        x[i] = a + b, x[i + step] = a - b;
      }
}

// n: a power of two
GPTQ_INLINE void transform(float* x, uint32_t n, float factor) {
  if (n < lanes) {
    transform_few(x, n);
    for (uint32_t i = 0; i < n; ++i) x[i] *= factor;
    return;
  }
  // Four vectors at a time for the first steps, then two steps at once.
  uint32_t step = lanes;
  if (n < 4 * lanes) {
    for (uint32_t i = 0; i < n; i += lanes) store(x + i, multiply(transform_vector(load(x + i)), all(factor)));
    if (n == 2 * lanes) {
      const Floats a = load(x), b = load(x + lanes);
      store(x, add(a, b)), store(x + lanes, subtract(a, b));
    }
    return;
  }
  const auto sums_of_four = [&](uint32_t i, bool within) __attribute__((always_inline)) {
    Floats v[4];
    for (uint32_t j = 0; j < 4; ++j) v[j] = load(x + i + j * step);
    if (within)
      for (Floats& w : v) w = multiply(transform_vector(w), all(factor));
    const Floats a = add(v[0], v[1]), b = subtract(v[0], v[1]), c = add(v[2], v[3]), d = subtract(v[2], v[3]);
    store(x + i, add(a, c)), store(x + i + step, add(b, d));
    store(x + i + 2 * step, subtract(a, c)), store(x + i + 3 * step, subtract(b, d));
  };
  for (uint32_t i = 0; i < n; i += 4 * lanes) sums_of_four(i, true);
  for (step *= 4; 4 * step <= n; step *= 4)
    for (uint32_t block = 0; block < n; block += 4 * step)
      for (uint32_t i = 0; i < step; i += lanes) sums_of_four(block + i, false);
  if (step < n)
    for (uint32_t i = 0; i < step; i += lanes) {
      const Floats a = load(x + i), b = load(x + step + i);
      store(x + i, add(a, b)), store(x + step + i, subtract(a, b));
    }
}

// Across blocks of n.
void reflect(float* x, uint32_t dim, uint32_t n) {
  const float part = 2 * static_cast<float>(n) / static_cast<float>(dim);
  uint32_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    Floats sum = all(0);
    for (uint32_t d = j; d < dim; d += n) sum = add(sum, load(x + d));
    sum = multiply(sum, all(part));
    for (uint32_t d = j; d < dim; d += n) store(x + d, subtract(load(x + d), sum));
  }
  for (; j < n; ++j) {
    float sum = 0;
    for (uint32_t d = j; d < dim; d += n) sum += x[d];
    for (uint32_t d = j; d < dim; d += n) x[d] -= part * sum;
  }
}

GPTQ_INLINE void transform_heads(const HadamardArgs& a) {
  const uint32_t n = hadamard_size(a.head_dim);
  const float factor = 1 / sqrtf(static_cast<float>(n));
  for (uint64_t i = 0; i < a.m; ++i)
    for (uint64_t head = 0; head < a.n_heads; ++head) {
      float* x = a.x + i * a.x_stride + head * a.head_dim;
      for (uint32_t block = 0; block < a.head_dim; block += n) transform(x + block, n, factor);
      if (n < a.head_dim) reflect(x, a.head_dim, n);
    }
}

}  // namespace
}  // namespace gptq::kernels
