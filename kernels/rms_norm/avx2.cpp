// SPDX-License-Identifier: Apache-2.0
// RMS norm in float32.
#include <math.h>

#include "kernels/x86.h"

namespace gptq::kernels {

void rms_norm_avx2(const RmsNormArgs& a) {
  const uint32_t rest = a.n % 8, whole = a.n - rest;
  for (uint32_t row = 0; row < a.rows; ++row) {
    const float* x = a.x + uint64_t{row} * a.n;
    float* y = a.y + uint64_t{row} * a.n;
    __m256 squares = _mm256_setzero_ps();
    for (uint32_t j = 0; j < whole; j += 8) squares = _mm256_fmadd_ps(_mm256_loadu_ps(x + j), _mm256_loadu_ps(x + j), squares);
    const __m256 tail = load_some<Kind::f32>(x, whole, rest);
    const float mean = sum_lanes(_mm256_fmadd_ps(tail, tail, squares)) / static_cast<float>(a.n);
    const __m256 factor = _mm256_set1_ps(1 / sqrtf(mean + a.eps));
    for (uint32_t j = 0; j < whole; j += 8)
      _mm256_storeu_ps(y + j, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + j), factor), _mm256_loadu_ps(a.weight + j)));
    store_some(y + whole, _mm256_mul_ps(_mm256_mul_ps(tail, factor), load_some<Kind::f32>(a.weight, whole, rest)), rest);
  }
}

}  // namespace gptq::kernels
