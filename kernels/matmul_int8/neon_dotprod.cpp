// SPDX-License-Identifier: Apache-2.0
#include "kernels/matmul_int8/neon.h"

namespace gptq::kernels {

void matmul_int8_neon_dotprod(const MatmulArgs& a) { multiply_any(a); }

}  // namespace gptq::kernels
