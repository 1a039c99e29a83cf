// SPDX-License-Identifier: Apache-2.0
// Weights of any kind times float32 activations: the specification.
#include "kernels/element.h"

namespace gptq::kernels {

void matmul_float_ref(const MatmulArgs& a) {
  const uint32_t last_row = a.last_block * 16 < a.w->n ? a.last_block * 16 : a.w->n;
  for (uint32_t row = a.first_block * 16; row < last_row; ++row)
    for (uint32_t i = 0; i < a.m; ++i) {
      const float* x = a.x + uint64_t{i} * a.w->k_padded;
      double sum = 0;
      for (uint32_t column = 0; column < a.w->k_padded; ++column) {
        const uint32_t place = is_quantized(a.w->kind) ? column / 64 * 64 + float_place(column) : column;
        sum += static_cast<double>(weight_at(*a.w, row, column)) * x[place];
      }
      float& y = a.y[uint64_t{i} * a.y_stride + row];
      y = static_cast<float>(sum + (a.bias ? a.bias[row] : 0.0f) + (a.accumulate ? y : 0.0f));
    }
}

}  // namespace gptq::kernels
