// SPDX-License-Identifier: Apache-2.0
// silu(gate) * up in float32.
#include "kernels/x86.h"

namespace gptq::kernels {
namespace {

GPTQ_INLINE __m256 silu_mul(__m256 gate, __m256 up) {
  const __m256 e = exp8(_mm256_sub_ps(_mm256_setzero_ps(), gate));
  return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

}  // namespace

void silu_mul_avx2(const SiluMulArgs& a) {
  uint64_t j = 0;
  for (; j + 8 <= a.count; j += 8) _mm256_storeu_ps(a.out + j, silu_mul(_mm256_loadu_ps(a.gate + j), _mm256_loadu_ps(a.up + j)));
  const auto rest = static_cast<uint32_t>(a.count - j);
  store_some(a.out + j, silu_mul(load_some<Kind::f32>(a.gate, j, rest), load_some<Kind::f32>(a.up, j, rest)), rest);
}

}  // namespace gptq::kernels
