// SPDX-License-Identifier: Apache-2.0
// silu(gate) * up: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {

void silu_mul_ref(const SiluMulArgs& a) {
  for (uint64_t j = 0; j < a.count; ++j) {
    const double gate = a.gate[j];
    a.out[j] = static_cast<float>(gate / (1 + exp(-gate)) * a.up[j]);
  }
}

}  // namespace gptq::kernels
