// SPDX-License-Identifier: Apache-2.0
// c -= a b in double: the specification.
#include "kernels/kernels.h"

namespace gptq::kernels {

void subtract_product_ref(const SubtractProductArgs& p) {
  for (uint32_t i = 0; i < p.m; ++i)
    for (uint32_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (uint32_t l = 0; l < p.k; ++l) sum += p.a[i * p.a_stride + l] * p.b[l * p.b_stride + j];
      p.c[i * p.c_stride + j] -= sum;
    }
}

}  // namespace gptq::kernels
