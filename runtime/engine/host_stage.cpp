// SPDX-License-Identifier: Apache-2.0
#include "engine/host_stage.h"

#include <algorithm>
#include <cstring>

namespace gptq::engine {

HostStage::HostStage(const model::Model& model, const model::Placement& layers, const KvLayout& layout, const Memory& memory,
                     const kernels::Kernels& kernels, base::Pool& pool, const Stage* before)
    : Stage(layers),
      model_(model),
      before_(before),
      device_(kernels, pool, memory.scratch),
      forward_(model.spec, device_, layout, memory.kv, memory.workspace, memory.routing, &memory.absorbed),
      kv_(memory.kv),
      layout_(layout) {}

void HostStage::begin(const device::Batch& batch) {
  n_rows_ = batch.n_rows();
  device_.begin(batch);
  if (before_) std::copy_n(before_->left_on_host(), uint64_t{n_rows_} * model_.spec.n_embd, forward_.workspace().x);
  else forward_.embed(n_rows_, model_);
}

uint32_t HostStage::compute(uint32_t from) {
  forward_.layer(n_rows_, model_.layers[from], from);
  return from + 1;
}

Logits HostStage::logits(uint32_t first, uint32_t count, uint32_t) {
  forward_.logits(first, count, model_);
  return {.n = count, .all = forward_.workspace().logits};
}

Logits HostStage::hidden(uint32_t first, uint32_t count) {
  forward_.hidden(first, count, model_);
  return {.n_hidden = count, .hidden = forward_.workspace().h};
}

void HostStage::copy_page(uint32_t from, uint32_t to) {
  const uint64_t bytes = layout_.page_bytes();
  std::memcpy(kv_ + to * bytes, kv_ + from * bytes, bytes);
}

void HostStage::read_kv(uint32_t page, uint32_t n_tokens, const Pieces& use) {
  std::byte* const at = kv_ + page * layout_.page_bytes();
  layout_.for_each_piece(n_tokens, [&](uint64_t offset, uint64_t size) { use({at + offset, static_cast<size_t>(size)}); });
}

}  // namespace gptq::engine
