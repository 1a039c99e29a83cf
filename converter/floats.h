// SPDX-License-Identifier: Apache-2.0
// Floating tensors of any width as float32.
#pragma once
#include <cstring>
#include <span>
#include <vector>

#include "converter/safetensors/file.h"
#include "kernels/half.h"

namespace gptq::convert {

template <class Word, class Convert>
std::vector<float> words_to_floats(std::span<const std::byte> bytes, Convert&& convert) {
  std::vector<float> out(bytes.size() / sizeof(Word));
  for (size_t i = 0; i < out.size(); ++i) {
    Word word;
    std::memcpy(&word, bytes.data() + i * sizeof(Word), sizeof word);
    out[i] = convert(word);
  }
  return out;
}

// f16, bf16 and f32 alone.
inline std::vector<float> to_floats(Dtype dtype, std::span<const std::byte> bytes) {
  if (dtype == Dtype::f16) return words_to_floats<uint16_t>(bytes, kernels::float_from_half);
  if (dtype == Dtype::bf16) return words_to_floats<uint16_t>(bytes, kernels::float_from_bf16);
  return words_to_floats<uint32_t>(bytes, kernels::float_from_bits);
}

}  // namespace gptq::convert
