// SPDX-License-Identifier: Apache-2.0
#include "kernels/layer_norm/simd.h"

namespace gptq::kernels {

void layer_norm_avx2(const LayerNormArgs& a) { layer_norm_rows(a); }

}  // namespace gptq::kernels
