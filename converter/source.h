// SPDX-License-Identifier: Apache-2.0
// The face of every importer: what the model is, and its weights one canonical slot (model/spec.h) at a time.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "model/spec.h"

namespace gptq::convert {

struct TokenizerDescription;  // tokenizer/description.h

struct Options {
  std::function<void(std::string_view)> warn = [](std::string_view) {};  // one line each, no newline
};

struct ModelDescription {
  format::fb::SpecT spec;
  format::fb::GenerationT generation;
  std::vector<std::pair<std::string, std::string>> meta;  // name, license, source, quantization, chat_template, ...
  std::shared_ptr<const TokenizerDescription> tokenizer;  // NULL: the model knows token ids only
};

// Weights as the checkpoint has them, with inputs and outputs in the runtime's order (rotary pairs j, j + dim/2). n and k are the slot's.
struct DenseWeight {
  kernels::Kind kind = kernels::Kind::f32;  // f32, f16, bf16
  std::vector<std::byte> bytes;             // [n][k] of kind
};

// w[row][input] = scale[row][g] * (code - zero[row][g]), g the group of the input.
struct QuantizedWeight {
  uint32_t bits = 0;              // 2, 3, 4, 8
  int32_t group_size = 0;         // as stated; -1 = one group
  uint32_t n_groups = 0;
  std::vector<uint8_t> codes;     // [n][k], each below 2^bits
  std::vector<float> scales;      // [n][n_groups]
  std::vector<uint8_t> zeros;     // [n][n_groups], each at most 255; empty = 2^(bits-1) everywhere
  std::vector<int32_t> g_idx;     // [k], each in 0..n_groups-1; empty = input / group_size
};

using Weight = std::variant<std::monostate, DenseWeight, QuantizedWeight>;  // monostate: the checkpoint has none

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  virtual const ModelDescription& description() const = 0;
  // Shapes already hold: an importer fails where the checkpoint's differ from the slot's.
  virtual Weight load(const model::Slot& slot) = 0;
};

// A Hugging Face folder or a GGUF file.
std::unique_ptr<ModelSource> open_source(std::string_view path, const Options& options);

}  // namespace gptq::convert
