// SPDX-License-Identifier: Apache-2.0
#include "kernels/lora_shrink/simd.h"

namespace gptq::kernels {

void lora_shrink_neon(const LoraShrinkArgs& a) { shrink(a); }

}  // namespace gptq::kernels
