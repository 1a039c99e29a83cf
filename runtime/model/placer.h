// SPDX-License-Identifier: Apache-2.0
// Where a model's weights go that are not to stay in the host's memory.
#pragma once
#include "model/spec.h"

namespace gptq::model {

// Bytes of a file's weights once they are loaded.
struct WeightBytes {
  explicit WeightBytes(std::pmr::memory_resource* memory) : layers(memory) {}
  std::pmr::vector<uint64_t> layers;
  uint64_t embed = 0, head = 0;  // with the norms and projections beside them; a tied embedding counts at both ends
};
WeightBytes weight_bytes(const format::Reader& reader, const ModelSpec& spec, std::pmr::memory_resource* memory);

class Placer {
 public:
  virtual ~Placer() = default;
  // The first layer that goes to the device, with all after it and the head; 0: the embedding too; n_layers: nothing does.
  virtual uint32_t first_layer(const ModelSpec& spec, const WeightBytes& bytes) = 0;
  // Copies a block to the device and says where it is.
  virtual std::byte* place(std::span<const std::byte> block) = 0;
};

}  // namespace gptq::model
