// SPDX-License-Identifier: Apache-2.0
#include "kernels/latent_attention/simd.h"

namespace gptq::kernels {

void latent_attention_avx2(const LatentAttentionArgs& a) { attend_any(a); }

}  // namespace gptq::kernels
