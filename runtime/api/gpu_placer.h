// SPDX-License-Identifier: Apache-2.0
// Which layers go to which GPU, and their weights there.
#pragma once
#include <forward_list>
#include <vector>

#include "device/gpu/gpu.h"
#include "model/placer.h"

namespace gptq::api {

constexpr uint32_t no_layers = UINT32_MAX;

// What a memory may get of a model. Layers go to the shares in their order.
struct Share {
  uint32_t memory;         // model::Placement's
  uint32_t layers = 0;     // 0: as many as fit, of the host the rest; no_layers
  uint64_t bytes_max = 0;  // of a GPU: what may be used
};

// As many layers fit as leave room for a KV cache of 4096 tokens, or the model's context, and some for activations. Where all do, every GPU
// gives the same part of its room. What fits nowhere is the host's: where its own share stands, else first. Fails with UNSUPPORTED by the name of
// what a GPU cannot do, and with OUT_OF_DEVICE_MEMORY where the host's share is not to have the rest.
std::pmr::vector<model::Placement> split(const model::ModelSpec& spec, const model::WeightBytes& bytes, std::span<const Share> shares,
                                         std::pmr::memory_resource* memory);

class GpuPlacer final : public model::Placer {
 public:
  // gpus: by the number that a share names it with.
  GpuPlacer(std::span<const device::Gpu* const> gpus, std::span<const Share> shares, std::pmr::memory_resource* memory)
      : gpus_(gpus.begin(), gpus.end(), memory), shares_(shares.begin(), shares.end(), memory), blocks_(memory), bytes_(gpus.size(), 0, memory) {}
  // Fails as split(), and with BUDGET_EXCEEDED and OUT_OF_DEVICE_MEMORY where a GPU has no room for the layers that it is to have.
  std::pmr::vector<model::Placement> choose(const model::ModelSpec& spec, const model::WeightBytes& bytes) override;
  std::byte* place(uint32_t gpu, std::span<const std::byte> block) override;
  uint64_t bytes(uint32_t gpu) const { return bytes_[gpu]; }

 private:
  const std::pmr::vector<const device::Gpu*> gpus_;
  const std::pmr::vector<Share> shares_;
  std::pmr::vector<device::GpuMemory> blocks_;
  std::pmr::vector<uint64_t> bytes_;  // of weights, by GPU
};

}  // namespace gptq::api
