// SPDX-License-Identifier: Apache-2.0
// RMS norm: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {

void rms_norm_ref(const RmsNormArgs& a) {
  for (uint32_t row = 0; row < a.rows; ++row) {
    const float* x = a.x + uint64_t{row} * a.n;
    float* y = a.y + uint64_t{row} * a.n;
    double squares = 0;
    for (uint32_t j = 0; j < a.n; ++j) squares += static_cast<double>(x[j]) * x[j];
    const double factor = 1 / sqrt(squares / a.n + a.eps);
    for (uint32_t j = 0; j < a.n; ++j) y[j] = static_cast<float>(x[j] * factor * (a.weight ? a.weight[j] : 1));
  }
}

}  // namespace gptq::kernels
