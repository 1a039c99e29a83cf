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

// A weight that is a matrix or a vector, with its bias.
struct Linear {
  kernels::Matrix w{};
  const float* bias = nullptr;  // [w.n]
  uint32_t slot = no_index;     // among the weights that adapters change
  explicit operator bool() const { return w.codes; }
  const float* values() const { return static_cast<const float*>(w.codes); }  // of a vector
};

struct Expert {
  Linear gate, up, down;
};

struct Layer {
  explicit Layer(std::pmr::memory_resource* memory = std::pmr::get_default_resource()) : experts(memory) {}
  Linear& operator[](Role role) { return of_[static_cast<size_t>(role) - static_cast<size_t>(first_layer_role)]; }
  const Linear& operator[](Role role) const { return const_cast<Layer&>(*this)[role]; }
  const float* vector(Role role) const { return (*this)[role].values(); }
  std::pmr::vector<Expert> experts;

  template <class F>
  void for_each(F&& f) {
    for (Linear& linear : of_) f(linear);
    for (Expert& expert : experts)
      for (Linear* linear : {&expert.gate, &expert.up, &expert.down}) f(*linear);
  }
  template <class F>
  void for_each(F&& f) const {
    const_cast<Layer*>(this)->for_each([&](const Linear& linear) { f(linear); });
  }
  Linear& at(const SlotId& id) {
    if (id.expert == no_index) return (*this)[id.role];
    Expert& expert = experts[id.expert];
    return id.role == Role::expert_gate ? expert.gate : id.role == Role::expert_up ? expert.up : expert.down;
  }

 private:
  Linear of_[n_layer_roles];
};

// What is before the first layer and behind the last.
struct Ends {
  Linear embed, positions, embed_proj, embed_norm, final_norm, head_proj, head;  // head is embed where tied
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

  const kernels::Matrix* find(const SlotId& id) const;
  Linear linear(SlotId id) const;
  Layer layer(const ModelSpec& spec, uint32_t index) const;
  uint64_t bytes() const { return block_.size(); }
  uint64_t n_params() const { return n_params_; }
  // The memory that all the pointers point into. Whoever keeps them longer than this object takes it.
  base::Buffer take_block() { return std::move(block_); }
  const base::Buffer& block() const { return block_; }

 private:
  std::pmr::memory_resource* memory_;
  base::Buffer block_;
  std::pmr::unordered_map<uint64_t, kernels::Matrix> table_;  // by SlotId::key()
  uint64_t n_params_ = 0;
};

// Bytes of a tensor in the block.
uint64_t placed_bytes(const format::fb::Tensor& tensor);

}  // namespace gptq::model
