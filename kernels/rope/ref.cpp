// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: the specification.
#include "kernels/kernels.h"

namespace gptq::kernels {

void rope_ref(const RopeArgs& a) {
  const uint32_t half = a.dim / 2;
  for (uint32_t i = 0; i < a.m; ++i)
    for (uint32_t head = 0; head < a.n_heads; ++head) {
      float* x = a.x + uint64_t{i} * a.x_stride + uint64_t{head} * a.head_dim;
      for (uint32_t j = 0; j < half; ++j) {
        const double cos = a.cos[uint64_t{i} * half + j], sin = a.sin[uint64_t{i} * half + j], low = x[j], high = x[j + half];
        x[j] = static_cast<float>(low * cos - high * sin);
        x[j + half] = static_cast<float>(high * cos + low * sin);
      }
    }
}

}  // namespace gptq::kernels
