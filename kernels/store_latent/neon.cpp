// SPDX-License-Identifier: Apache-2.0
#include "kernels/store_latent/simd.h"

namespace gptq::kernels {

void store_latent_neon(const StoreLatentArgs& a) { store_latent_rows(a); }

}  // namespace gptq::kernels
