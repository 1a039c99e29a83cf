// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/simd.h"

namespace gptq::kernels {

void elementwise_avx512vnni(const ElementwiseArgs& a) { change(a); }

}  // namespace gptq::kernels
