// SPDX-License-Identifier: Apache-2.0
#include "kernels/store_kv/simd.h"

namespace gptq::kernels {

void store_kv_avx2(const StoreKvArgs& a) { store_rows(a); }

}  // namespace gptq::kernels
