// SPDX-License-Identifier: Apache-2.0
#include "kernels/hadamard/simd.h"

namespace gptq::kernels {

void hadamard_avx2(const HadamardArgs& a) { transform_heads(a); }

}  // namespace gptq::kernels
