// SPDX-License-Identifier: Apache-2.0
#include "kernels/head_matmul/simd.h"

namespace gptq::kernels {

void head_matmul_avx2(const HeadMatmulArgs& a) { multiply_heads(a); }

}  // namespace gptq::kernels
