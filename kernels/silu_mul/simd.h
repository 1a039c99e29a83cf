// SPDX-License-Identifier: Apache-2.0
// silu(gate) * up in float32, for any vector width.
#pragma once
#include "kernels/vector.h"

namespace gptq::kernels {
namespace {

// e^x, relative error below 2e-7; 0 or next to it below -88, infinity above 89, NaN stays.
GPTQ_INLINE Floats exp_of(Floats x) {
  const Floats magic = all(0x1.8p23f), bias = all(127);  // magic added and subtracted rounds to a whole number
  const auto whole = [&](Floats v) { return subtract(add(v, magic), magic); };
  const auto power_of_two = [&](Floats n) { return bits_up_23(add(n, add(magic, bias))); };
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
  p = add(fma(multiply(r, r), p, r), all(1));
  const Floats half = whole(multiply(n, all(0.5f)));  // 2^n in two factors: n = 128 has no float of its own
  return multiply(multiply(p, power_of_two(half)), power_of_two(subtract(n, half)));
}

GPTQ_INLINE Floats silu_mul(Floats gate, Floats up) {
  return multiply(divide(gate, add(all(1), exp_of(subtract(all(0), gate)))), up);
}

GPTQ_INLINE void silu_mul(const SiluMulArgs& a) {
  uint64_t j = 0;
  for (; j + lanes <= a.count; j += lanes) store(a.out + j, silu_mul(load(a.gate + j), load(a.up + j)));
  const auto rest = static_cast<uint32_t>(a.count - j);
  store_part(a.out + j, silu_mul(load_part(a.gate + j, rest), load_part(a.up + j, rest)), rest);
}

}  // namespace
}  // namespace gptq::kernels
