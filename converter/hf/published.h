// SPDX-License-Identifier: Apache-2.0
// A model file's weights by the names that checkpoints of its family have for them.
#pragma once
#include <memory>

#include "converter/hf/families.h"

namespace gptq::convert {

struct Published {
  format::fb::SpecT spec;
  Layout layout;
  const Family* family = nullptr;        // NULL: the Llama line
  std::unique_ptr<JsonDocument> config;  // of a family: as it was imported
  bool whole_experts = false;            // all experts of a layer are in tensors of three dimensions
  bool gate_up_apart = false;            // although the family has them in one module

  Piece locate(const model::SlotId& id) const;
};
// Fails with UNSUPPORTED where the file does not say which family it is of.
Published read_published(const format::fb::Manifest& manifest);

// The text of a meta entry, or "".
std::string find_meta(const format::fb::Manifest& manifest, std::string_view key);

}  // namespace gptq::convert
