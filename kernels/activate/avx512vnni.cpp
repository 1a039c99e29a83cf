// SPDX-License-Identifier: Apache-2.0
#include "kernels/activate/simd.h"

namespace gptq::kernels {

void activate_avx512vnni(const ActivateArgs& a) { activate(a); }

}  // namespace gptq::kernels
