// SPDX-License-Identifier: Apache-2.0
// Tensors of a file, read into one block of memory: all of a model's, or one layer's.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/threads.h"
#include "model/placer.h"

namespace gptq::model {

struct Linear {
  kernels::Matrix w{};
  const float* bias = nullptr;  // [w.n]
};

struct Layer {
  const float* attn_norm = nullptr;  // [n_embd]
  const float* mlp_norm = nullptr;   // [n_embd]
  const float* q_norm = nullptr;     // [head_dim] or NULL
  const float* k_norm = nullptr;
  Linear q, k, v, o, gate, up, down;
};

// Called on the loading thread with 0..1000; returning true cancels.
using Progress = bool (*)(void* user, uint32_t permille);

struct LoadOptions {
  Progress progress = nullptr;
  void* progress_user = nullptr;
  Placer* placer = nullptr;  // NULL: everything stays on the host
};

class Weights {
 public:
  // Checks and reads every slot's tensor; fails where a required one is missing.
  Weights(const format::Reader& reader, std::span<const Slot> slots, const LoadOptions& options, base::Pool& pool,
          std::pmr::memory_resource* memory);

  const kernels::Matrix* find(std::string_view prefix, std::string_view name, std::string_view suffix = "") const;
  Linear linear(std::string_view prefix, std::string_view name) const;
  const float* vector(std::string_view prefix, std::string_view name, std::string_view suffix = "") const;
  Layer layer(uint32_t index) const;
  uint64_t bytes() const { return block_.size(); }
  uint64_t n_params() const { return n_params_; }
  // What all the pointers point into, for who keeps them longer than this object.
  base::Buffer take_block() { return std::move(block_); }
  const base::Buffer& block() const { return block_; }

 private:
  std::pmr::memory_resource* memory_;
  base::Buffer block_;
  std::pmr::unordered_map<std::pmr::string, kernels::Matrix> table_;
  uint64_t n_params_ = 0;
};

// "layers.7."
std::pmr::string layer_prefix(uint32_t layer, std::pmr::memory_resource* memory);
// Bytes of a tensor in the block.
uint64_t placed_bytes(const format::fb::Tensor& tensor);

}  // namespace gptq::model
