// SPDX-License-Identifier: Apache-2.0
// Unquantized weights -> the bytes of one tensor of the file.
#pragma once
#include "converter/source.h"

namespace gptq::convert {

// name is for messages. The weight's size is checked against n and k.
PackedTensor pack_dense(std::string_view name, const DenseWeight& weight, uint32_t n, uint32_t k);
// A vector becomes float32.
PackedTensor pack_vector(std::string_view name, const DenseWeight& weight, uint32_t n);

}  // namespace gptq::convert
