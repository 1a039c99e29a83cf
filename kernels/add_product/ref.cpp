// SPDX-License-Identifier: Apache-2.0
// c += a b in float32: the specification.
#include "kernels/kernels.h"

namespace gptq::kernels {

void add_product_ref(const AddProductArgs& p) {
  for (uint32_t i = 0; i < p.m; ++i)
    for (uint32_t j = 0; j < p.n; ++j) {
      const float* b = p.b + uint64_t{j / panel_columns} * panel_columns * p.k + j % panel_columns;
      float sum = 0;
      for (uint32_t l = 0; l < p.k; ++l) sum += p.a[i * p.a_row + l * p.a_step] * b[uint64_t{l} * panel_columns];
      p.c[i * p.c_stride + j] += sum;
    }
}

}  // namespace gptq::kernels
