// SPDX-License-Identifier: Apache-2.0
// The first matrix of an adapter in 8 bits: the specification.
#include "kernels/kernels.h"

namespace gptq::kernels {

void lora_shrink_ref(const LoraShrinkArgs& a) {
  for (uint64_t i = 0; i < a.m; ++i)
    for (uint64_t r = a.first_rank; r < a.last_rank; ++r) {
      double sum = 0;
      for (uint64_t k = 0; k < a.k; ++k) sum += static_cast<double>(a.a[r * a.k + k]) * a.x[i * a.k + k];
      a.y[i * a.rank + r] = static_cast<float>(sum * a.scale[r] * a.factor);
    }
}

}  // namespace gptq::kernels
