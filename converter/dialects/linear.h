// SPDX-License-Identifier: Apache-2.0
// One GPTQ linear layer from its tensors: qweight, qzeros, scales, g_idx.
#pragma once
#include "converter/dialects/quant_config.h"
#include "converter/safetensors/folder.h"
#include "converter/source.h"

namespace gptq::convert {

// Whether `module` is stored quantized. Fails with UNSUPPORTED where it is, but in a format that is not GPTQ's.
bool is_quantized_module(const TensorFolder& tensors, const std::string& module);
// Warns where the config promises quantized weights and not one tensor is: then another file may have been meant. folder: to name it.
void warn_of_no_quantized(const TensorFolder& tensors, const std::string& folder, const QuantConfig& config, const Options& options);
// n outputs, k inputs: shapes that do not fit them are refused; bits and group size follow from the shapes where the config differs.
QuantizedWeight read_gptq_linear(const TensorFolder& tensors, const std::string& module, uint32_t n, uint32_t k, const QuantConfig& config,
                                 const Options& options);

}  // namespace gptq::convert
