// SPDX-License-Identifier: Apache-2.0
// One vector of floats, as wide as the instruction set this file is compiled for, for kernels written once for all of them (simd.h).
// Everything has internal linkage: such kernels are compiled once per instruction set.
#pragma once
#if defined(__AVX512F__)
#include "kernels/vector_avx512.h"
#elif defined(__AVX2__)
#include "kernels/vector_avx2.h"
#elif defined(__ARM_NEON)
#include "kernels/vector_neon.h"
#endif

namespace gptq::kernels {

// The first count of them, zeros behind; reads and writes nothing past them.
template <Kind kind>
GPTQ_INLINE Floats load_part_as(const void* data, uint64_t index, uint32_t count) {
  constexpr uint32_t size = bits_of(kind) / 8;
  float part[lanes] = {};
  if (count) memcpy(part, static_cast<const char*>(data) + index * size, count * size);
  return load_as<kind>(part, 0);
}
GPTQ_INLINE Floats load_part(const float* p, uint32_t count) { return load_part_as<Kind::f32>(p, 0, count); }
GPTQ_INLINE void store_part(float* p, Floats v, uint32_t count) {
  float part[lanes];
  store(part, v);
  if (count) memcpy(p, part, count * sizeof *part);
}

// 2^x, for x <= 0, is power * (1 + f * slope).
struct Exp2 {
  Floats power, f, slope;
};
GPTQ_INLINE Exp2 exp2_parts(Floats x) {
  const Floats magic = all(0x1.8p23f + 127);  // added, it leaves 127 + x rounded to a whole number in the low bits
  const Floats clamped = larger(all(-127), x), shifted = add(clamped, magic);
  const Floats f = subtract(clamped, subtract(shifted, magic));
  Floats p = all(0.00015353362f);
  p = fma(p, f, all(0.0013398874f));
  p = fma(p, f, all(0.009618437f));
  p = fma(p, f, all(0.055503324f));
  p = fma(p, f, all(0.24022648f));
  p = fma(p, f, all(0.6931472f));
  return {bits_up_23(shifted), f, p};
}

// 2^x for x <= 0, relative error below 1e-7; 0 below -126.5, NaN stays.
GPTQ_INLINE Floats exp2_negative(Floats x) {
  const Exp2 e = exp2_parts(x);
  return multiply(fma(e.slope, e.f, all(1)), e.power);
}

// Relative error below 3e-7, NaN stays: (1 - e) / (1 + e) of e = exp(-2|x|), where 1 - e is worked out without taking it from 1.
GPTQ_INLINE Floats tanh_of(Floats x) {
  const Exp2 e = exp2_parts(multiply(magnitude(x), all(-2.88539008f)));
  const Floats lost = subtract(subtract(all(1), e.power), multiply(multiply(e.power, e.f), e.slope));
  return with_sign_of(divide(lost, subtract(all(2), lost)), x);
}

}  // namespace gptq::kernels
