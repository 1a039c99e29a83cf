// SPDX-License-Identifier: Apache-2.0
// Rounds a floating matrix to 4 or 8 bits: for the output head, which plain GPTQ checkpoints leave at 16.
#pragma once
#include "base/threads.h"
#include "converter/source.h"

namespace gptq::convert {

// weight [n][k], finite. Symmetric, groups of 64 inputs (8 bits) or 32 (4 bits), the scale of each the best of a few.
QuantizedWeight round_to_nearest(std::string_view name, const DenseWeight& weight, uint32_t n, uint32_t k, uint32_t bits, base::Pool& pool);

}  // namespace gptq::convert
