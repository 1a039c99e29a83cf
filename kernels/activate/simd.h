// SPDX-License-Identifier: Apache-2.0
// The MLP's activations in float32, for any vector width.
#pragma once
#include "kernels/vector_math.h"

namespace gptq::kernels {
namespace {

// x * Phi(x) = max(x, 0) - |x| Phi(-|x|), where Phi(-t) is e^(-t^2 / 2) times a polynomial of 1 / (1 + t / 4), fitted for t up to 14.
GPTQ_INLINE Floats gelu(Floats x) {
  const Floats t = magnitude(x), u = divide(all(1), fma(t, all(0.25f), all(1)));
  Floats p = all(0.028784736f);
  p = fma(p, u, all(-0.167508098f));
  p = fma(p, u, all(0.326081636f));
  p = fma(p, u, all(-0.239553376f));
  p = fma(p, u, all(0.22472243f));
  p = fma(p, u, all(0.0233047751f));
  p = fma(p, u, all(0.1061683f));
  p = fma(p, u, all(0.0981827782f));
  p = fma(p, u, all(0.0998168107f));
  const Floats tail = multiply(multiply(p, u), exp_of(multiply(multiply(t, t), all(-0.5f))));
  return subtract(larger(all(0), x), multiply(smaller(all(20), t), tail));  // infinity times 0 would be NaN
}

GPTQ_INLINE Floats gelu_tanh(Floats x) {  // x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3))
  const Floats inner = multiply(x, fma(multiply(x, x), all(0.0713548163f), all(1.59576912f)));
  return divide(x, add(all(1), exp_of(negative(inner))));
}

GPTQ_INLINE Floats xielu(Floats x, const XieluParameters& a) {
  const Floats low = multiply(all(a.negative), subtract(exp_minus_one(smaller(all(a.eps), x)), x));
  return fma(all(a.beta), x, where_positive(x, multiply(multiply(all(a.positive), x), x), low));
}

template <Activation act>
GPTQ_INLINE Floats activated(Floats x, const XieluParameters& a) {
  const Floats positive = larger(all(0), x);
  switch (act) {
    case Activation::silu: return silu_of(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::relu: return positive;
    case Activation::relu2: return multiply(positive, positive);
    case Activation::swiglu_clamped: {
      const Floats g = smaller(all(7), x);
      return divide(g, add(all(1), exp_of(multiply(g, all(-1.702f)))));
    }
    case Activation::xielu: break;
  }
  return xielu(x, a);
}

template <Activation act>
GPTQ_INLINE Floats gated(Floats gate, Floats up, const XieluParameters& a) {
  if (act == Activation::swiglu_clamped) up = add(larger(all(-7), smaller(all(7), up)), all(1));
  return multiply(activated<act>(gate, a), up);
}

template <Activation act>
GPTQ_INLINE void activate(const ActivateArgs& a) {
  const float* gate = a.gate;
  const auto each = [&](auto f) {
    uint64_t j = 0;
    for (; j + lanes <= a.count; j += lanes) store(a.out + j, f(gate ? load(gate + j) : all(0), load(a.up + j)));
    const auto rest = static_cast<uint32_t>(a.count - j);
    store_part(a.out + j, f(gate ? load_part(gate + j, rest) : all(0), load_part(a.up + j, rest)), rest);
  };
  if (gate) return each([&](Floats g, Floats up) { return gated<act>(g, up, a.xielu); });
  each([&](Floats, Floats up) { return activated<act>(up, a.xielu); });
}

GPTQ_INLINE void activate(const ActivateArgs& a) {
  switch (a.act) {
    case Activation::silu: return activate<Activation::silu>(a);
    case Activation::gelu: return activate<Activation::gelu>(a);
    case Activation::gelu_tanh: return activate<Activation::gelu_tanh>(a);
    case Activation::relu: return activate<Activation::relu>(a);
    case Activation::relu2: return activate<Activation::relu2>(a);
    case Activation::swiglu_clamped: return activate<Activation::swiglu_clamped>(a);
    case Activation::xielu: return activate<Activation::xielu>(a);
  }
}

}  // namespace
}  // namespace gptq::kernels
