// SPDX-License-Identifier: Apache-2.0
// Layers on a GPU: their KV cache, their activations, and the recorded runs of decoding.
#pragma once
#include "device/gpu/gpu_device.h"
#include "engine/forward.h"
#include "engine/shape.h"
#include "engine/stage.h"
#include "model/model.h"

namespace gptq::engine {

class GpuStage final : public Stage {
 public:
  // What it takes on the device besides the KV cache.
  static uint64_t scratch_bytes(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights, const model::Placement& layers,
                                const device::Gpu& gpu);
  // before: the stage before, or NULL.
  GpuStage(const EngineShape& shape, const model::Model& model, const model::Placement& layers, const device::Gpu& gpu, const Routing& routing,
           Stage* before, std::pmr::memory_resource* memory);

  void begin(const device::Batch& batch) override;
  uint32_t compute(uint32_t from) override;
  uint32_t n_quanta() const override;
  bool leave() override;
  Logits logits(uint32_t first, uint32_t count, uint32_t n_candidates) override;
  Logits hidden(uint32_t first, uint32_t count) override;
  bool runs_whole(const device::Batch& batch, uint32_t n_candidates) const override;
  Logits run(const device::Batch& batch, uint32_t n_candidates) override;
  bool finish(uint32_t wait_us) override { return device_.finish(wait_us); }
  void go_on_with(const Stage& next) override;
  const float* left_on_host() const override { return reinterpret_cast<const float*>(left_.data()); }
  GpuStage* gpu() override { return this; }
  const GpuStage* gpu() const override { return this; }
  void copy_page(uint32_t from, uint32_t to) override;
  void read_kv(uint32_t page, uint32_t n_tokens, const Pieces& use) override;
  void write_kv(uint32_t page, uint32_t n_tokens, const Pieces& fill) override;

 private:
  // Records decoding: in quanta for 1 up to 8 sessions and multiples of 8 up to 64, as a whole for up to 16.
  void record();
  uint32_t end_of_quantum(uint32_t first) const;
  void compute_layers(uint32_t rows, uint32_t first, uint32_t end);
  void take_input();
  std::byte* page_at(uint32_t page) const { return kv_memory_.data() + page * layout_.page_bytes(); }
  Logits await(uint32_t count, uint32_t n_candidates, const int32_t* best);
  static uint32_t key_of_layers(uint32_t n_rows, uint32_t first_layer) { return n_rows << 16 | first_layer; }
  static uint32_t key_of_logits(uint32_t n_rows) { return n_rows << 16 | 0xFFFF; }
  // A whole run: of the last stage to its logits, or to the best token.
  static uint32_t key_of_batch(uint32_t n_rows, bool to_token) { return n_rows << 16 | (to_token ? 0xFFFE : 0xFFFD); }

  bool is_last() const { return layers().end_layer == model_.spec.n_layers; }
  uint64_t n_output() const { return uint64_t{padded_} * model_.spec.n_embd; }

  const device::Gpu& gpu_;
  const model::Model& model_;
  const EngineShape& shape_;
  Stage* const before_;
  const KvLayout layout_;
  device::GpuMemory memory_, kv_memory_;
  device::GpuMemory page_;     // on the host
  device::GpuMemory left_;     // on the host, where the next stage takes from there: [batch_tokens][n_embd]
  bool next_follows_ = true;   // the next stage needs not wait for the host
  const Workspace workspace_;
  device::GpuDevice device_;
  Forward forward_;
  uint32_t n_rows_ = 0;        // of the batch
  uint32_t padded_ = 0;        // with those that are added so that it is a recorded size
  bool one_row_each_ = false;  // every sequence has one
};

}  // namespace gptq::engine
