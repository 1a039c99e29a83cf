// SPDX-License-Identifier: Apache-2.0
#include "kernels/rope/simd.h"

namespace gptq::kernels {

void rope_avx2(const RopeArgs& a) { rotate_heads(a); }

}  // namespace gptq::kernels
