// SPDX-License-Identifier: Apache-2.0
// One row of a matrix as float32: the specification.
#include "kernels/element.h"

namespace gptq::kernels {

void dequantize_row_ref(const DequantizeRowArgs& a) {
  for (uint32_t column = 0; column < a.w->k_padded; ++column) {
    const int64_t input = a.w->perm ? a.w->perm[column] : column < a.w->k ? int64_t{column} : -1;
    if (input >= 0) a.out[input] = weight_at(*a.w, a.row, column);
  }
}

}  // namespace gptq::kernels
