// SPDX-License-Identifier: Apache-2.0
// The second matrix of an adapter in 8 bits: the specification.
#include "kernels/kernels.h"

namespace gptq::kernels {

void lora_expand_ref(const LoraExpandArgs& a) {
  for (uint64_t i = 0; i < a.m; ++i)
    for (uint64_t row = uint64_t{a.first_block} * 16; row < uint64_t{a.last_block} * 16 && row < a.n; ++row) {
      double sum = 0;
      for (uint64_t r = 0; r < a.rank; ++r) sum += static_cast<double>(a.b[(row / 16 * a.rank + r) * 16 + row % 16]) * a.x[i * a.rank + r];
      a.y[i * a.n + row] += static_cast<float>(sum);
    }
}

}  // namespace gptq::kernels
