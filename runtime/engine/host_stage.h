// SPDX-License-Identifier: Apache-2.0
// Layers on the CPU.
#pragma once
#include "device/cpu/cpu_device.h"
#include "engine/forward.h"
#include "engine/stage.h"
#include "model/model.h"

namespace gptq::engine {

class HostStage final : public Stage {
 public:
  // What it works in, the engine's.
  struct Memory {
    const Workspace& workspace;
    const Routing& routing;
    const Absorbed& absorbed;
    const device::CpuScratch& scratch;
    std::byte* kv;
  };
  // before: the stage before, or NULL.
  HostStage(const model::Model& model, const model::Placement& layers, const KvLayout& layout, const Memory& memory,
            const kernels::Kernels& kernels, base::Pool& pool, const Stage* before);

  void begin(const device::Batch& batch) override;
  uint32_t compute(uint32_t from) override;
  uint32_t n_quanta() const override { return layers().n_layers(); }
  bool leave() override { return true; }
  Logits logits(uint32_t first, uint32_t count, uint32_t) override;
  Logits hidden(uint32_t first, uint32_t count) override;
  bool runs_whole(const device::Batch&, uint32_t) const override { return false; }
  Logits run(const device::Batch&, uint32_t) override { return {}; }
  bool finish(uint32_t) override { return true; }
  void go_on_with(const Stage&) override {}
  const float* left_on_host() const override { return forward_.workspace().x; }

  void copy_page(uint32_t from, uint32_t to) override;
  void read_kv(uint32_t page, uint32_t n_tokens, const Pieces& use) override;
  void write_kv(uint32_t page, uint32_t n_tokens, const Pieces& fill) override { read_kv(page, n_tokens, fill); }

  device::CpuDevice& device() { return device_; }

 private:
  const model::Model& model_;
  const Stage* const before_;
  device::CpuDevice device_;
  Forward forward_;
  std::byte* const kv_;
  const KvLayout layout_;
  uint32_t n_rows_ = 0;  // of the batch
};

}  // namespace gptq::engine
