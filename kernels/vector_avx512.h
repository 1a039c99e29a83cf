// SPDX-License-Identifier: Apache-2.0
// Floats of vector.h: 16 lanes.
#pragma once
#include "kernels/x86.h"

namespace gptq::kernels {

using Floats = __m512;
constexpr uint32_t lanes = 16;
GPTQ_INLINE Floats all(float x) { return _mm512_set1_ps(x); }
GPTQ_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
GPTQ_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
GPTQ_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
GPTQ_INLINE Floats subtract(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
GPTQ_INLINE Floats multiply(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
GPTQ_INLINE Floats divide(Floats a, Floats b) { return _mm512_div_ps(a, b); }
GPTQ_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
GPTQ_INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where either is NaN
GPTQ_INLINE Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
GPTQ_INLINE Floats bits_up_23(Floats v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 23)); }
GPTQ_INLINE Floats high_bf16(Floats v) { return _mm512_and_ps(v, _mm512_castsi512_ps(_mm512_set1_epi32(-65536))); }  // of two in 32 bits
GPTQ_INLINE Floats low_bf16(Floats v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16)); }
GPTQ_INLINE Floats magnitude(Floats v) { return _mm512_abs_ps(v); }
GPTQ_INLINE Floats with_sign_of(Floats x, Floats sign) {  // x is not negative
  return _mm512_or_ps(x, _mm512_and_ps(_mm512_set1_ps(-0.0f), sign));
}
GPTQ_INLINE Floats where_positive(Floats x, Floats a, Floats b) {  // a where x > 0, else b
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), b, a);
}
GPTQ_INLINE Floats larger_bits(Floats a, Floats b) { return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))); }
GPTQ_INLINE float sum_of(Floats v) { return _mm512_reduce_add_ps(v); }
GPTQ_INLINE float largest_of(Floats v) { return _mm512_reduce_max_ps(v); }
GPTQ_INLINE Floats load_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

template <Kind kind>
GPTQ_INLINE Floats load_as(const void* data, uint64_t index) {
  if constexpr (kind == Kind::f32) return load(static_cast<const float*>(data) + index);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const uint16_t*>(data) + index));
  if constexpr (kind == Kind::f16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

GPTQ_INLINE void sums_of(Floats a, Floats b, Floats c, Floats d, float* sums) {
  const auto fold = [](Floats v) { return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)); };
  _mm_storeu_ps(sums, sum_lanes(fold(a), fold(b), fold(c), fold(d)));
}

GPTQ_INLINE void store_half(uint16_t* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
GPTQ_INLINE void store_int8(int8_t* p, Floats v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))); }

// Bytes of two codes in 4 bits each.
using Codes = __m512i;
GPTQ_INLINE Codes load_codes(const std::byte* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
GPTQ_INLINE Floats low_codes(Codes c) { return _mm512_cvtepi32_ps(_mm512_and_si512(c, _mm512_set1_epi32(15))); }
GPTQ_INLINE Floats high_codes(Codes c) { return _mm512_cvtepi32_ps(_mm512_srli_epi32(c, 4)); }
GPTQ_INLINE void load_16_codes(const std::byte* p, Floats* v) {  // 8 bytes: the low halves, then the high ones
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  v[0] = low_codes(_mm512_cvtepu8_epi32(_mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4))));
}

template <KvKind kind>
GPTQ_INLINE Floats load_kv(const std::byte* p) {
  if constexpr (kind == KvKind::f32) return _mm512_loadu_ps(p);
  if constexpr (kind == KvKind::f16) return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace gptq::kernels
