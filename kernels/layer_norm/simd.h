// SPDX-License-Identifier: Apache-2.0
// Layer norm in float32, for any vector width.
#pragma once
#include <math.h>

#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

GPTQ_INLINE void layer_norm_row(const LayerNormArgs& a, const float* x, float* y) {
  const uint32_t rest = a.n % lanes, whole = a.n - rest;
  const auto n = static_cast<float>(a.n);
  Floats sum = load_part(x + whole, rest);
  for (uint32_t j = 0; j < whole; j += lanes) sum = add(load(x + j), sum);
  const Floats mean = all(sum_of(sum) / n);
  float ones[lanes];
  store(ones, all(1));
  const Floats tail = multiply(subtract(load_part(x + whole, rest), mean), load_part(ones, rest));
  Floats squares = multiply(tail, tail);
  for (uint32_t j = 0; j < whole; j += lanes) {
    const Floats distance = subtract(load(x + j), mean);
    squares = fma(distance, distance, squares);
  }
  const Floats factor = all(1 / sqrtf(sum_of(squares) / n + a.eps));
  for (uint32_t j = 0; j < whole; j += lanes) {
    const Floats normed = multiply(subtract(load(x + j), mean), factor);
    store(y + j, fma(normed, a.weight ? load(a.weight + j) : all(1), a.bias ? load(a.bias + j) : all(0)));
  }
  const Floats weight = a.weight ? load_part(a.weight + whole, rest) : all(1), bias = a.bias ? load_part(a.bias + whole, rest) : all(0);
  store_part(y + whole, fma(multiply(tail, factor), weight, bias), rest);
}

GPTQ_INLINE void layer_norm_rows(const LayerNormArgs& a) {
  for (uint64_t row = 0; row < a.rows; ++row) layer_norm_row(a, a.x + row * a.n, a.y + row * a.n);
}

}  // namespace
}  // namespace gptq::kernels
