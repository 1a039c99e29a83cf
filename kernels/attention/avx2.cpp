// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention/simd.h"

namespace gptq::kernels {

void attention_avx2(const AttentionArgs& a) { attend_all(a); }

}  // namespace gptq::kernels
