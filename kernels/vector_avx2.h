// SPDX-License-Identifier: Apache-2.0
// Floats of vector.h: 8 lanes.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {

using Floats = __m256;
constexpr uint32_t lanes = 8;
GPTQ_INLINE Floats all(float x) { return _mm256_set1_ps(x); }
GPTQ_INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
GPTQ_INLINE void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
GPTQ_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
GPTQ_INLINE Floats subtract(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
GPTQ_INLINE Floats multiply(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
GPTQ_INLINE Floats divide(Floats a, Floats b) { return _mm256_div_ps(a, b); }
GPTQ_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
GPTQ_INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // b where either is NaN
GPTQ_INLINE Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
GPTQ_INLINE Floats bits_up_23(Floats v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 23)); }
GPTQ_INLINE Floats high_bf16(Floats v) { return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(-65536))); }  // of two in 32 bits
GPTQ_INLINE Floats low_bf16(Floats v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 16)); }
GPTQ_INLINE Floats magnitude(Floats v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
GPTQ_INLINE Floats with_sign_of(Floats x, Floats sign) {  // x is not negative
  return _mm256_or_ps(x, _mm256_and_ps(_mm256_set1_ps(-0.0f), sign));
}
GPTQ_INLINE Floats where_positive(Floats x, Floats a, Floats b) {  // a where x > 0, else b
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ));
}
GPTQ_INLINE Floats larger_bits(Floats a, Floats b) { return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b))); }
GPTQ_INLINE float sum_of(Floats v) { return _mm_cvtss_f32(sum_lanes(v, v, v, v)); }
GPTQ_INLINE float largest_of(Floats v) {
  __m128 max = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  max = _mm_max_ps(max, _mm_movehl_ps(max, max));
  return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}
GPTQ_INLINE Floats load_bytes(const uint8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

template <Kind kind>
GPTQ_INLINE Floats load_as(const void* data, uint64_t index) {
  return load8<kind>(data, index);
}

GPTQ_INLINE void sums_of(Floats a, Floats b, Floats c, Floats d, float* sums) { _mm_storeu_ps(sums, sum_lanes(a, b, c, d)); }

GPTQ_INLINE void store_half(uint16_t* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
GPTQ_INLINE void store_int8(int8_t* p, Floats v) {
  const __m256i codes = _mm256_cvtps_epi32(v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

// Bytes of two codes in 4 bits each.
using Codes = __m256i;
GPTQ_INLINE Codes load_codes(const std::byte* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
GPTQ_INLINE Floats low_codes(Codes c) { return _mm256_cvtepi32_ps(_mm256_and_si256(c, _mm256_set1_epi32(15))); }
GPTQ_INLINE Floats high_codes(Codes c) { return _mm256_cvtepi32_ps(_mm256_srli_epi32(c, 4)); }
GPTQ_INLINE void load_16_codes(const std::byte* p, Floats* v) {  // 8 bytes: the low halves, then the high ones
  const Codes codes = load_codes(p);
  v[0] = low_codes(codes);
  v[1] = high_codes(codes);
}

// Its elements, each exchanged with the one `step` away within twice as many.
template <uint32_t step>
GPTQ_INLINE Floats exchange(Floats v) {
  if constexpr (step == 4) return _mm256_permute2f128_ps(v, v, 1);
  return _mm256_permute_ps(v, step == 2 ? 0x4e : 0xb1);
}

template <KvKind kind>
GPTQ_INLINE Floats load_kv(const std::byte* p) {
  if constexpr (kind == KvKind::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  if constexpr (kind == KvKind::f16) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace gptq::kernels
