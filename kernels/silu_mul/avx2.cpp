// SPDX-License-Identifier: Apache-2.0
#include "kernels/silu_mul/simd.h"

namespace gptq::kernels {

void silu_mul_avx2(const SiluMulArgs& a) { silu_mul(a); }

}  // namespace gptq::kernels
