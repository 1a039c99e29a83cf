// SPDX-License-Identifier: Apache-2.0
#include "kernels/delta/simd.h"

namespace gptq::kernels {

void delta_avx2(const DeltaArgs& a) { delta_heads(a); }

}  // namespace gptq::kernels
