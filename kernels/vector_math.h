// SPDX-License-Identifier: Apache-2.0
// Exponential and what is made of it, for any vector width. NaN stays everywhere.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {

GPTQ_INLINE Floats negative(Floats x) { return subtract(all(0), x); }

// e^x as (1 + fraction) * 2^n, n whole; x between -88 and 89.
struct Exp {
  Floats fraction, n;
};
GPTQ_INLINE Floats whole(Floats x) { return subtract(add(x, all(0x1.8p23f)), all(0x1.8p23f)); }
GPTQ_INLINE Floats power_of_two(Floats n) { return bits_up_23(add(n, all(0x1.8p23f + 127))); }  // n whole, -127..127
GPTQ_INLINE Exp exp_parts(Floats x) {
  const Floats clamped = larger(all(-88), smaller(all(89), x));
  const Floats n = whole(multiply(clamped, all(1.44269504f)));
  Floats r = fma(n, all(-0.693145752f), clamped);
  r = fma(n, all(-1.42860677e-6f), r);
  Floats p = all(1.0f / 5040);
  p = fma(p, r, all(1.0f / 720));
  p = fma(p, r, all(1.0f / 120));
  p = fma(p, r, all(1.0f / 24));
  p = fma(p, r, all(1.0f / 6));
  p = fma(p, r, all(0.5f));
  return {fma(multiply(r, r), p, r), n};
}

// e^x, relative error below 2e-7; 0 or next to it below -88, infinity above 89.
GPTQ_INLINE Floats exp_of(Floats x) {
  const Exp e = exp_parts(x);
  const Floats half = whole(multiply(e.n, all(0.5f)));  // 2^n in two factors: n = 128 has no float of its own
  return multiply(multiply(add(e.fraction, all(1)), power_of_two(half)), power_of_two(subtract(e.n, half)));
}

// e^x - 1 for x <= 0, relative error below 3e-7.
GPTQ_INLINE Floats exp_minus_one(Floats x) {
  const Exp e = exp_parts(x);
  const Floats power = power_of_two(e.n);
  return fma(e.fraction, power, subtract(power, all(1)));
}

GPTQ_INLINE Floats sigmoid_of(Floats x) { return divide(all(1), add(all(1), exp_of(negative(x)))); }
GPTQ_INLINE Floats silu_of(Floats x) { return divide(x, add(all(1), exp_of(negative(x)))); }

// log(1 + e^x), relative error below 4e-7: log(1 + z) is the series of 2 atanh(s), s = z / (2 + z), at most 1/3 here.
GPTQ_INLINE Floats softplus_of(Floats x) {
  const Floats z = exp_of(negative(magnitude(x)));
  const Floats s = divide(z, add(all(2), z)), square = multiply(s, s);
  Floats p = all(1.0f / 13);
  p = fma(p, square, all(1.0f / 11));
  p = fma(p, square, all(1.0f / 9));
  p = fma(p, square, all(1.0f / 7));
  p = fma(p, square, all(1.0f / 5));
  p = fma(p, square, all(1.0f / 3));
  p = fma(p, square, all(1));
  return fma(add(s, s), p, larger(all(0), x));
}

}  // namespace gptq::kernels
