// SPDX-License-Identifier: Apache-2.0
#include "kernels/convolve/simd.h"

namespace gptq::kernels {

void convolve_neon(const ConvolveArgs& a) { convolve(a); }

}  // namespace gptq::kernels
