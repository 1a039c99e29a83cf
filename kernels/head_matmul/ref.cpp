// SPDX-License-Identifier: Apache-2.0
// Each head's own matrix times its activations: the specification.
#include "kernels/element.h"

namespace gptq::kernels {

void head_matmul_ref(const HeadMatmulArgs& a) {
  for (uint64_t head = a.first_head; head < a.last_head; ++head)
    for (uint64_t i = 0; i < a.m; ++i) {
      const float* x = a.x + i * a.x_stride + head * a.x_head_stride;
      float* y = a.y + i * a.y_stride + head * a.y_head_stride;
      for (uint64_t row = 0; row < a.n; ++row) {
        double sum = 0;
        for (uint32_t k = 0; k < a.k; ++k) sum += static_cast<double>(load_element(a.w, (head * a.n + row) * a.k + k, a.kind)) * x[k];
        y[row] = static_cast<float>(sum);
      }
    }
}

}  // namespace gptq::kernels
