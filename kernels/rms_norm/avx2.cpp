// SPDX-License-Identifier: Apache-2.0
#include "kernels/rms_norm/simd.h"

namespace gptq::kernels {

void rms_norm_avx2(const RmsNormArgs& a) { norm_rows(a); }

}  // namespace gptq::kernels
