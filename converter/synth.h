// SPDX-License-Identifier: Apache-2.0
// Models of a real shape with random weights, so that speed can be measured without a download.
#pragma once
#include <memory>
#include <string_view>

#include "converter/source.h"

namespace gptq::convert {

struct SynthOptions {
  uint32_t bits = 4;        // of the layers' matrices: 2, 3, 4, 8, or 16 for float16
  int32_t group_size = 128;
  uint32_t head_bits = 16;  // of embedding and head: 4, 8 or 16
};

// shape: smollm2-135m, llama-1.1b, llama3-8b, llama2-13b, qwen3-moe-small, or the path of a config.json. The same options give the same weights.
std::unique_ptr<ModelSource> make_synth(std::string_view shape, const SynthOptions& options);

}  // namespace gptq::convert
