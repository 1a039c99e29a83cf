// SPDX-License-Identifier: Apache-2.0
// Quantized weights times int8 activations: the specification.
#include "kernels/element.h"

namespace gptq::kernels {

void matmul_int8_ref(const MatmulArgs& a) {
  const Int8Activations& x = a.x8;
  const uint32_t last_row = a.last_block * 16 < a.w->n ? a.last_block * 16 : a.w->n;
  for (uint32_t row = a.first_block * 16; row < last_row; ++row)
    for (uint32_t i = 0; i < a.m; ++i) {
      double sum = 0;
      for (uint32_t column = 0; column < x.k_padded; ++column) {
        const Record& record = x.records[uint64_t{column} / record_columns * x.rows + i];
        sum += static_cast<double>(weight_at(*a.w, row, column)) * record.multiplier[column % 64 / 16][0] * record.q[line_byte(column % 64)];
      }
      float& y = a.y[uint64_t{i} * a.y_stride + row];
      y = static_cast<float>(sum * static_cast<double>(x.scale[i]) + (a.bias ? a.bias[row] : 0.0f) + (a.accumulate ? y : 0.0f));
    }
}

}  // namespace gptq::kernels
