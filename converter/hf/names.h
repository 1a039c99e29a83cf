// SPDX-License-Identifier: Apache-2.0
// What the weights are called in Hugging Face checkpoints.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace gptq::convert {

// "layers.3.q" -> "model.layers.3.self_attn.q_proj"
std::string hf_module(std::string_view slot);
// All modules of a model of so many layers.
std::vector<std::string> hf_modules(uint32_t n_layers);

}  // namespace gptq::convert
