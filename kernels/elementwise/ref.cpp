// SPDX-License-Identifier: Apache-2.0
// Small steps on every element: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

double changed(const ElementwiseArgs& a, double x, double y) {
  const double factor = a.factor;
  switch (a.kind) {
    case Elementwise::scale: return x * factor;
    case Elementwise::clamp: return x > factor ? factor : x < -factor ? -factor : x;  // NaN stays
    case Elementwise::softcap: return factor * tanh(x / factor);
    case Elementwise::gate: return x / (1 + exp(-y));
    case Elementwise::add_scaled: return x + factor * y;
  }
  return x;
}

}  // namespace

void elementwise_ref(const ElementwiseArgs& a) {
  const bool two = a.kind >= Elementwise::gate;
  for (uint64_t j = 0; j < a.count; ++j) a.out[j] = static_cast<float>(changed(a, a.x[j], two ? a.y[j] : 0));
}

}  // namespace gptq::kernels
