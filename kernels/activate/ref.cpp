// SPDX-License-Identifier: Apache-2.0
// The MLP's activations: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

double sigmoid(double x) { return 1 / (1 + exp(-x)); }
double within(double x, double limit) { return x > limit ? limit : x < -limit ? -limit : x; }  // NaN stays

double activated(const ActivateArgs& a, double x) {
  switch (a.act) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu: return x / 2 * erfc(-x * M_SQRT1_2);
    case Activation::gelu_tanh: return x * sigmoid(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::relu2: return x < 0 ? 0 : x * x;
    case Activation::swiglu_clamped: x = x > 7 ? 7 : x; return x * sigmoid(1.702 * x);
    case Activation::xielu: break;
  }
  const double eps = a.xielu.eps, bent = x > 0 ? a.xielu.positive * x * x : a.xielu.negative * (expm1(x > eps ? eps : x) - x);
  return bent + a.xielu.beta * x;
}

}  // namespace

void activate_ref(const ActivateArgs& a) {
  const bool clamped = a.act == Activation::swiglu_clamped;
  for (uint64_t j = 0; j < a.count; ++j) {
    const double up = a.up[j];
    const double y = a.gate ? activated(a, a.gate[j]) * (clamped ? within(up, 7) + 1 : up) : activated(a, up);
    a.out[j] = static_cast<float>(y);
  }
}

}  // namespace gptq::kernels
