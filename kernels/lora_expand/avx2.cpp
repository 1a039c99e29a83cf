// SPDX-License-Identifier: Apache-2.0
#include "kernels/lora_expand/simd.h"

namespace gptq::kernels {

void lora_expand_avx2(const LoraExpandArgs& a) { expand(a); }

}  // namespace gptq::kernels
