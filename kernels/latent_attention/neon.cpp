// SPDX-License-Identifier: Apache-2.0
#include "kernels/latent_attention/simd.h"

namespace gptq::kernels {

void latent_attention_neon(const LatentAttentionArgs& a) { attend_any(a); }

}  // namespace gptq::kernels
