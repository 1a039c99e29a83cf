// SPDX-License-Identifier: Apache-2.0
// The weight types of GGUF files: which are supported, their sizes, and what their blocks say.
#pragma once
#include <cstdint>
#include <string_view>

namespace gptq::convert {

struct GgufType {
  uint32_t id;
  std::string_view name;
  uint32_t block;                                   // weights
  uint32_t block_bytes;
  void (*decode)(const uint8_t* block, float* out);  // NULL: floating numbers, taken as they are
};

// Fails with UNSUPPORTED and the type's name; tensor is for the message.
const GgufType& find_gguf_type(uint32_t id, std::string_view tensor);

}  // namespace gptq::convert
