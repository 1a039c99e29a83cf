// SPDX-License-Identifier: Apache-2.0
// Floats of vector.h: 4 lanes.
#pragma once
#include <arm_neon.h>

#include "kernels/common.h"

namespace gptq::kernels {

using Floats = float32x4_t;
constexpr uint32_t lanes = 4;
GPTQ_INLINE Floats all(float x) { return vdupq_n_f32(x); }
GPTQ_INLINE Floats load(const float* p) { return vld1q_f32(p); }
GPTQ_INLINE void store(float* p, Floats v) { vst1q_f32(p, v); }
GPTQ_INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
GPTQ_INLINE Floats subtract(Floats a, Floats b) { return vsubq_f32(a, b); }
GPTQ_INLINE Floats multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
GPTQ_INLINE Floats divide(Floats a, Floats b) { return vdivq_f32(a, b); }
GPTQ_INLINE Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
GPTQ_INLINE Floats larger(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // b where either is NaN
GPTQ_INLINE Floats smaller(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
GPTQ_INLINE Floats bits_up_23(Floats v) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 23)); }
GPTQ_INLINE Floats high_bf16(Floats v) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0xffff0000))); }  // of two in 32 bits
GPTQ_INLINE Floats low_bf16(Floats v) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 16)); }
GPTQ_INLINE Floats magnitude(Floats v) { return vabsq_f32(v); }
GPTQ_INLINE Floats with_sign_of(Floats x, Floats sign) { return vbslq_f32(vdupq_n_u32(0x80000000), sign, x); }  // x is not negative
GPTQ_INLINE Floats where_positive(Floats x, Floats a, Floats b) { return vbslq_f32(vcgtzq_f32(x), a, b); }  // a where x > 0, else b
GPTQ_INLINE Floats larger_bits(Floats a, Floats b) { return vreinterpretq_f32_s32(vmaxq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b))); }
GPTQ_INLINE float sum_of(Floats v) { return vaddvq_f32(v); }
GPTQ_INLINE float largest_of(Floats v) { return vmaxvq_f32(v); }
GPTQ_INLINE Floats load_bytes(const uint8_t* p) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))))));
}

template <Kind kind>
GPTQ_INLINE Floats load_as(const void* data, uint64_t index) {
  if constexpr (kind == Kind::f32) return load(static_cast<const float*>(data) + index);
  const uint16x4_t bits = vld1_u16(static_cast<const uint16_t*>(data) + index);
  if constexpr (kind == Kind::f16) return vcvt_f32_f16(vreinterpret_f16_u16(bits));
  return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

GPTQ_INLINE void sums_of(Floats a, Floats b, Floats c, Floats d, float* sums) { store(sums, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))); }

GPTQ_INLINE void store_half(uint16_t* p, Floats v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
GPTQ_INLINE void store_int8(int8_t* p, Floats v) {
  const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(v));
  vst1_lane_s32(reinterpret_cast<int32_t*>(p), vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(words, words))), 0);
}

// Bytes of two codes in 4 bits each.
using Codes = uint32x4_t;
GPTQ_INLINE Codes load_codes(const std::byte* p) {
  uint32_t four;
  memcpy(&four, p, sizeof four);
  return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))));
}
GPTQ_INLINE Floats low_codes(Codes c) { return vcvtq_f32_u32(vandq_u32(c, vdupq_n_u32(15))); }
GPTQ_INLINE Floats high_codes(Codes c) { return vcvtq_f32_u32(vshrq_n_u32(c, 4)); }
GPTQ_INLINE void load_16_codes(const std::byte* p, Floats* v) {  // 8 bytes: the low halves, then the high ones
  for (uint32_t i = 0; i < 2; ++i) {
    const Codes codes = load_codes(p + i * 4);
    v[i] = low_codes(codes);
    v[2 + i] = high_codes(codes);
  }
}

// Its elements, each exchanged with the one `step` away within twice as many.
template <uint32_t step>
GPTQ_INLINE Floats exchange(Floats v) {
  if constexpr (step == 2) return vextq_f32(v, v, 2);
  return vrev64q_f32(v);
}

template <KvKind kind>
GPTQ_INLINE Floats load_kv(const std::byte* p) {
  if constexpr (kind == KvKind::f32) return vld1q_f32(reinterpret_cast<const float*>(p));
  if constexpr (kind == KvKind::f16) return vcvt_f32_f16(vld1_f16(reinterpret_cast<const float16_t*>(p)));
  int32_t four;
  memcpy(&four, p, sizeof four);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}

}  // namespace gptq::kernels
