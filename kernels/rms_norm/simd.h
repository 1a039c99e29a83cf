// SPDX-License-Identifier: Apache-2.0
// RMS norm in float32, for any vector width.
#pragma once
#include <math.h>

#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

// weight may be NULL: all 1, which changes no bit.
GPTQ_INLINE void norm_row(const float* x, const float* weight, float* y, uint32_t n, float eps) {
  const uint32_t rest = n % lanes, whole = n - rest;
  Floats squares = all(0);
  for (uint32_t j = 0; j < whole; j += lanes) squares = fma(load(x + j), load(x + j), squares);
  const Floats tail = load_part(x + whole, rest);
  const float mean = sum_of(fma(tail, tail, squares)) / static_cast<float>(n);
  const Floats factor = all(1 / sqrtf(mean + eps));
  const auto scaled = [&](Floats v, Floats w) { return multiply(multiply(v, factor), w); };
  for (uint32_t j = 0; j < whole; j += lanes) store(y + j, scaled(load(x + j), weight ? load(weight + j) : all(1)));
  store_part(y + whole, scaled(tail, weight ? load_part(weight + whole, rest) : all(1)), rest);
}

GPTQ_INLINE void norm_rows(const RmsNormArgs& a) {
  for (uint64_t row = 0; row < a.rows; ++row) norm_row(a.x + row * a.n, a.weight, a.y + row * a.n, a.n, a.eps);
}

}  // namespace
}  // namespace gptq::kernels
