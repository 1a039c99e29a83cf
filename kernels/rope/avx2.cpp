// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, 8 pairs at a time.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

struct Pair {
  __m256 low, high;
};

GPTQ_INLINE Pair rotate(Pair x, __m256 cos, __m256 sin) {
  return {_mm256_fmsub_ps(x.low, cos, _mm256_mul_ps(x.high, sin)), _mm256_fmadd_ps(x.high, cos, _mm256_mul_ps(x.low, sin))};
}

void rotate_head(float* x, const float* cos, const float* sin, uint32_t half) {
  uint32_t j = 0;
  for (; j + 8 <= half; j += 8) {
    const Pair y = rotate({_mm256_loadu_ps(x + j), _mm256_loadu_ps(x + half + j)}, _mm256_loadu_ps(cos + j), _mm256_loadu_ps(sin + j));
    _mm256_storeu_ps(x + j, y.low);
    _mm256_storeu_ps(x + half + j, y.high);
  }
  const uint32_t rest = half - j;
  const auto load = [&](const float* from) { return load_some<Kind::f32>(from, j, rest); };
  const Pair y = rotate({load(x), load(x + half)}, load(cos), load(sin));
  store_some(x + j, y.low, rest);
  store_some(x + half + j, y.high, rest);
}

}  // namespace

void rope_avx2(const RopeArgs& a) {
  const uint32_t half = a.dim / 2;
  for (uint64_t i = 0; i < a.m; ++i)
    for (uint64_t head = 0; head < a.n_heads; ++head)
      rotate_head(a.x + i * a.x_stride + head * a.head_dim, a.cos + i * half, a.sin + i * half, half);
}

}  // namespace gptq::kernels
