// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul_int8/neon.h"

namespace gptq::kernels {

void matmul_int8_neon_i8mm(const MatmulArgs& a) { multiply_any(a); }

}  // namespace gptq::kernels
