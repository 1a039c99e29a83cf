// SPDX-License-Identifier: Apache-2.0
// How many layers go to a GPU, and their weights there.
#pragma once
#include <vector>

#include "device/cuda/gpu.h"
#include "model/placer.h"

namespace gptq::api {

// The first layer of those that the host asked for (gptq_model_params::device_layers), or as many as fit in so many bytes with a KV cache of
// 4096 tokens, or the model's context, and some room for activations.
uint32_t first_device_layer(const model::ModelSpec& spec, const model::WeightBytes& bytes, uint32_t device_layers, uint64_t bytes_max);

class GpuPlacer final : public model::Placer {
 public:
  GpuPlacer(const device::Gpu& gpu, uint32_t device_layers, uint64_t bytes_max, std::pmr::memory_resource* memory)
      : gpu_(gpu), device_layers_(device_layers), bytes_max_(bytes_max), blocks_(memory) {}
  uint32_t first_layer(const model::ModelSpec& spec, const model::WeightBytes& bytes) override {
    return first_device_layer(spec, bytes, device_layers_, bytes_max_);
  }
  std::byte* place(std::span<const std::byte> block) override;
  uint64_t bytes() const { return bytes_; }

 private:
  const device::Gpu& gpu_;
  uint32_t device_layers_;
  uint64_t bytes_max_, bytes_ = 0;
  std::pmr::vector<device::GpuMemory> blocks_;
};

}  // namespace gptq::api
