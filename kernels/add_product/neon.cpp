// SPDX-License-Identifier: Apache-2.0
#include "kernels/add_product/panels.h"

namespace gptq::kernels {

void add_product_neon(const AddProductArgs& p) { add_product(p); }

}  // namespace gptq::kernels
