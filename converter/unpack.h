// SPDX-License-Identifier: Apache-2.0
// The tensors of a .gptq file as weights again: what pack.h does, undone.
#pragma once
#include "base/threads.h"
#include "converter/source.h"

namespace gptq::convert {

// Padding goes, inputs come in true order; g_idx is always there, zeros where the tensor is asymmetric. Vectors are dense float32.
Weight unpack(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot, base::Pool& pool);
// The same of a quantized matrix in memory. name is for messages.
QuantizedWeight unpack_quantized(const kernels::Matrix& w, int32_t group_size, std::string_view name, base::Pool& pool);

// Which group each input of a quantized tensor is in, and how many groups that makes; reads what little that needs.
std::vector<int32_t> groups_of_inputs(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot);
uint32_t count_groups(const std::vector<int32_t>& g_idx, int32_t group_size);

// A quantized weight's values, [n][k].
std::vector<float> dequantize(const QuantizedWeight& weight, uint32_t n, uint32_t k);

}  // namespace gptq::convert
