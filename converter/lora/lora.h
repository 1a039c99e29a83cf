// SPDX-License-Identifier: Apache-2.0
// A PEFT folder with a LoRA (adapter_config.json, adapter_model.safetensors) as one .gptq-lora file for a model.
#pragma once
#include <string>

#include "base/io.h"
#include "converter/source.h"

namespace gptq::convert {

struct LoraOptions {
  bool replace = false;
  std::optional<kernels::Kind> kind;  // of what is written; none: as the folder has it
};

struct LoraResult {
  uint32_t n_matrices = 0, rank = 0;
  uint64_t n_parameters = 0, bytes = 0;
};

// model: the .gptq file. Fails with UNSUPPORTED, by name, on what such a file cannot say.
LoraResult convert_lora(const std::string& folder, const base::Source& model, std::string_view path, const LoraOptions& options);

}  // namespace gptq::convert
