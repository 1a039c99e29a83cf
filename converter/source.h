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

#include "model/pack.h"
#include "model/spec.h"

namespace gptq::convert {

struct TokenizerDescription;  // tokenizer/description.h

struct Options {
  std::function<void(std::string_view)> warn = [](std::string_view) {};  // one line each, no newline
  // The same about one of many matrices, which is said once for all that it holds for; empty: warn, with the name before it.
  std::function<void(std::string_view module, std::string_view text)> warn_of;
  // A part of a file that is not read again; empty: nobody wants to know.
  std::function<void(std::string_view file, uint64_t offset, uint64_t bytes)> done_with;
};

struct ModelDescription {
  format::fb::SpecT spec;
  format::fb::GenerationT generation;
  std::vector<std::pair<std::string, std::string>> meta;  // name, license, source, quantization, chat_template, ...
  std::shared_ptr<const TokenizerDescription> tokenizer;  // NULL: the model knows token ids only
};

// Weights as the checkpoint has them, in the runtime's order (model/pack.h).
struct DenseWeight {
  kernels::Kind kind = kernels::Kind::f32;  // f32, f16, bf16
  std::vector<std::byte> bytes;             // [n][k] of kind
};

using model::PackedTensor, model::QuantizedWeight;
using Weight = std::variant<std::monostate, DenseWeight, QuantizedWeight>;  // monostate: the checkpoint has none

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  virtual const ModelDescription& description() const = 0;
  // Shapes already hold: an importer fails where the checkpoint's differ from the slot's.
  virtual Weight load(const model::Slot& slot) = 0;
  // All slots of the layer have been loaded, and none is again; model::no_index: all that belong to none.
  virtual void finish_layer(uint32_t) {}
  // All slots have been loaded: says what was noticed on the way.
  virtual void finish() {}
};

// The description's spec by the runtime's rules, where so many bytes can hold so many layers and experts: lists are made of those.
model::ModelSpec checked_spec(const format::fb::SpecT& spec, uint64_t bytes = UINT64_MAX);

// A Hugging Face folder or a GGUF file.
std::unique_ptr<ModelSource> open_source(std::string_view path, const Options& options);

}  // namespace gptq::convert
