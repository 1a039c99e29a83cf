// SPDX-License-Identifier: Apache-2.0
// What an engine has on a GPU: the KV cache of the layers there, their activations, and the recorded runs of decoding.
#pragma once
#include "device/cuda/cuda_device.h"
#include "engine/forward.h"
#include "engine/shape.h"
#include "model/model.h"

namespace gptq::engine {

constexpr uint32_t gpu_layers_at_once = 4;  // a quantum of a step with a budget, and a CUDA graph

class GpuPart {
 public:
  static uint64_t scratch_bytes(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights, const device::Gpu& gpu);
  GpuPart(const EngineShape& shape, const model::Model& model, const WeightShape& weights, const device::Gpu& gpu, std::pmr::memory_resource* memory);

  device::CudaDevice& device() { return device_; }
  std::byte* kv() const { return kv_memory_.data(); }
  const Workspace& workspace() const { return workspace_; }
  // Records decoding: in quanta for 1 up to 8 sessions and multiples of 8 up to 64, as a whole for up to 16.
  void record(Forward& forward, const model::Model& model, const EngineShape& shape);
  static uint32_t key_of_layers(uint32_t n_rows, uint32_t first_layer) { return n_rows << 16 | first_layer; }
  static uint32_t key_of_logits(uint32_t n_rows) { return n_rows << 16 | 0xFFFF; }
  // A batch from its tokens to its logits, or to the best token, where all layers are here.
  static uint32_t key_of_batch(uint32_t n_rows, bool to_token) { return n_rows << 16 | (to_token ? 0xFFFE : 0xFFFD); }

 private:
  device::GpuMemory memory_, kv_memory_;
  const Workspace workspace_;
  device::CudaDevice device_;
};

}  // namespace gptq::engine
