// SPDX-License-Identifier: Apache-2.0
// Layer norm: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {

void layer_norm_ref(const LayerNormArgs& a) {
  for (uint32_t row = 0; row < a.rows; ++row) {
    const float* x = a.x + uint64_t{row} * a.n;
    float* y = a.y + uint64_t{row} * a.n;
    double sum = 0, squares = 0;
    for (uint32_t j = 0; j < a.n; ++j) sum += x[j];
    const double mean = sum / a.n;
    for (uint32_t j = 0; j < a.n; ++j) squares += (x[j] - mean) * (x[j] - mean);
    const double factor = 1 / sqrt(squares / a.n + a.eps);
    for (uint32_t j = 0; j < a.n; ++j)
      y[j] = static_cast<float>((x[j] - mean) * factor * (a.weight ? a.weight[j] : 1) + (a.bias ? a.bias[j] : 0));
  }
}

}  // namespace gptq::kernels
