// SPDX-License-Identifier: Apache-2.0
// One vector of floats, as wide as the instruction set this file is compiled for, for kernels written once for all of them. Everything
// has internal linkage: such kernels are compiled once per instruction set.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {

#if defined(__AVX512F__)

using Floats = __m512;
constexpr uint32_t lanes = 16;
GPTQ_INLINE Floats all(float x) { return _mm512_set1_ps(x); }
GPTQ_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
GPTQ_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
GPTQ_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
GPTQ_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
GPTQ_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
GPTQ_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
GPTQ_INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where either is NaN
GPTQ_INLINE Floats bits_up_23(Floats v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 23)); }
GPTQ_INLINE float sum_of(Floats v) { return _mm512_reduce_add_ps(v); }
GPTQ_INLINE float largest_of(Floats v) { return _mm512_reduce_max_ps(v); }

template <KvKind kind>
GPTQ_INLINE Floats load_kv(const std::byte* p) {
  if constexpr (kind == KvKind::f32) return _mm512_loadu_ps(p);
  if constexpr (kind == KvKind::f16) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

#elif defined(__AVX2__)

using Floats = __m256;
constexpr uint32_t lanes = 8;
GPTQ_INLINE Floats all(float x) { return _mm256_set1_ps(x); }
GPTQ_INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
GPTQ_INLINE void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
GPTQ_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
GPTQ_INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
GPTQ_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
GPTQ_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
GPTQ_INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // b where either is NaN
GPTQ_INLINE Floats bits_up_23(Floats v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 23)); }
GPTQ_INLINE float sum_of(Floats v) { return sum_lanes(v); }
GPTQ_INLINE float largest_of(Floats v) { return max_lanes(v); }

template <KvKind kind>
GPTQ_INLINE Floats load_kv(const std::byte* p) {
  if constexpr (kind == KvKind::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  if constexpr (kind == KvKind::f16) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

#endif

// 2^x for x <= 0, relative error below 1e-7; 0 below -126.5, NaN stays.
GPTQ_INLINE Floats exp2_negative(Floats x) {
  const Floats magic = all(0x1.8p23f + 127);  // added, it leaves 127 + x rounded to a whole number in the low bits
  const Floats clamped = larger(all(-127), x), shifted = add(clamped, magic);
  const Floats f = subtract(clamped, subtract(shifted, magic));
  Floats p = all(0.00015353362f);
  p = fma(p, f, all(0.0013398874f));
  p = fma(p, f, all(0.009618437f));
  p = fma(p, f, all(0.055503324f));
  p = fma(p, f, all(0.24022648f));
  p = fma(p, f, all(0.6931472f));
  p = fma(p, f, all(1));
  return multiply(p, bits_up_23(shifted));
}

}  // namespace gptq::kernels
