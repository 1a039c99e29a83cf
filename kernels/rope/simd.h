// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, a vector of pairs at a time, for any vector width.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

struct Pair {
  Floats low, high;
};

GPTQ_INLINE Pair rotate(Pair x, Floats cos, Floats sin) {
  return {fma(x.low, cos, multiply(x.high, subtract(all(0), sin))), fma(x.high, cos, multiply(x.low, sin))};
}

GPTQ_INLINE void rotate_head(float* x, const float* cos, const float* sin, uint32_t half) {
  uint32_t j = 0;
  for (; j + lanes <= half; j += lanes) {
    const Pair y = rotate({load(x + j), load(x + half + j)}, load(cos + j), load(sin + j));
    store(x + j, y.low);
    store(x + half + j, y.high);
  }
  const uint32_t rest = half - j;
  const Pair y = rotate({load_part(x + j, rest), load_part(x + half + j, rest)}, load_part(cos + j, rest), load_part(sin + j, rest));
  store_part(x + j, y.low, rest);
  store_part(x + half + j, y.high, rest);
}

GPTQ_INLINE void rotate_heads(const RopeArgs& a) {
  const uint32_t half = a.dim / 2;
  for (uint64_t i = 0; i < a.m; ++i)
    for (uint64_t head = 0; head < a.n_heads; ++head)
      rotate_head(a.x + i * a.x_stride + head * a.head_dim, a.cos + i * half, a.sin + i * half, half);
}

}  // namespace
}  // namespace gptq::kernels
