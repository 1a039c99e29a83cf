// SPDX-License-Identifier: Apache-2.0
// Where a model's weights go: a list of placements, in the order of the layers.
#pragma once
#include "model/spec.h"

namespace gptq::model {

constexpr uint32_t host_memory = UINT32_MAX;

// Layers side by side in one memory. The first placement of a list has what is before the layers as well, the last what is behind them.
struct Placement {
  uint32_t memory;  // a GPU's number, or host_memory
  uint32_t first_layer, end_layer;
  bool on_host() const { return memory == host_memory; }
  uint32_t n_layers() const { return end_layer - first_layer; }
};
// None is empty; each memory is there once at most.
using Placements = std::span<const Placement>;
// That of the layers on the host, or an empty one.
Placement host_part(Placements placements);
inline bool all_on_host(Placements placements) { return placements.size() == 1 && placements[0].on_host(); }

// Bytes of a file's weights once they are loaded.
struct WeightBytes {
  explicit WeightBytes(std::pmr::memory_resource* memory) : layers(memory) {}
  std::pmr::vector<uint64_t> layers;
  uint64_t embed = 0, head = 0;  // with the norms and projections beside them; a tied embedding counts at both ends
};
WeightBytes weight_bytes(const format::Reader& reader, const ModelSpec& spec, std::pmr::memory_resource* memory);
// Of a placement.
uint64_t placed_bytes(const ModelSpec& spec, const WeightBytes& weights, const Placement& placement);

class Placer {
 public:
  virtual ~Placer() = default;
  virtual std::pmr::vector<Placement> choose(const ModelSpec& spec, const WeightBytes& bytes) = 0;
  // Copies a block to a GPU and says where it is.
  virtual std::byte* place(uint32_t gpu, std::span<const std::byte> block) = 0;
};

}  // namespace gptq::model
