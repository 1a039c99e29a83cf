// SPDX-License-Identifier: Apache-2.0
// Where everything that sequences leave behind lies: the pages of keys and values, and the state of recurrent layers.
#pragma once
#include <functional>

#include "device/device.h"
#include "model/spec.h"

namespace gptq::engine {

class KvLayout {
 public:
  // How multi-head latent attention is kept: kv_rank + d_rope numbers a token, or the keys and values of every head.
  enum class Latents : uint8_t { kept, expanded };
  // Of layers first_layer .. end_layer - 1, on the host.
  KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKinds kinds,
           Latents latents = Latents::kept);
  // On a GPU; kind is f16 or i8.
  static KvLayout on_gpu(const model::ModelSpec& spec, uint32_t first_layer, uint32_t end_layer, uint32_t page_tokens, kernels::KvKind kind);

  uint64_t page_bytes() const { return page_bytes_; }
  // Of one sequence, 0 without recurrent layers. It is kept twice: as it was, and as the batch in progress leaves it.
  uint64_t state_bytes() const { return state_bytes_; }
  // Bytes of a page's first `rows` tokens, and where they lie in it: use(offset, size). All that others may have left in it stays out.
  uint64_t row_bytes() const { return layer_bytes_ * n_caches_ / page_tokens_; }
  void for_each_piece(uint32_t rows, const std::function<void(uint64_t, uint64_t)>& use) const;
  device::KvCache cache(std::byte* arena, uint32_t layer) const;
  uint64_t state_of(uint32_t layer) const { return state_before(layer); }

 private:
  KvLayout(const model::ModelSpec& spec, uint32_t first_layer, uint32_t page_tokens, kernels::KvKinds kinds);
  void for_each_piece_of(uint64_t half, uint32_t dim, kernels::KvKind kind, bool grouped, uint32_t rows, const std::function<void(uint64_t, uint64_t)>& use) const;
  uint64_t caches_before(uint32_t layer) const;  // counted from first_layer_
  uint64_t state_before(uint32_t layer) const;

  const model::ModelSpec& spec_;
  uint32_t first_layer_, page_tokens_, n_kv_heads_, key_dim_, value_dim_;
  uint64_t n_caches_ = 0;  // layers with pages
  bool on_gpu_ = false;
  kernels::KvKinds kinds_;
  uint64_t key_bytes_ = 0, layer_bytes_ = 0, page_bytes_ = 0, state_bytes_ = 0;
};

// Bytes of a layer's part of the state, 0 where it attends.
uint64_t recurrent_bytes(const model::ModelSpec& spec, const model::LayerSpec& layer);
inline bool is_recurrent(const model::ModelSpec& spec) { return spec.any(model::Mixer::delta) || spec.any(model::Mixer::short_conv); }

}  // namespace gptq::engine
