// SPDX-License-Identifier: Apache-2.0
// A low-rank adapter (LoRA): what it adds to matrices of one shape of model. Constant once made.
//
// The file is a .gptq container with the feature "adapter": the spec of the model it was made for, and for every matrix that it changes
// "layers.3.q.a" [rank][k] and "layers.3.q.b" [n][rank], of floating kinds, in the runtime's order. The second says the scale.
#pragma once
#include <span>

#include "base/io.h"
#include "base/threads.h"
#include "model/spec.h"

namespace gptq::model {

constexpr uint32_t adapter_rank_max = 1024;

// "layers.3.q.a"
std::pmr::string name_of_a(const Slot& slot);
std::pmr::string name_of_b(const Slot& slot);
// Whether an adapter may change the weight. Experts' and those that latent attention takes apart it may not.
bool may_change(const SlotId& id);

class Adapter {
 public:
  // Fails with UNSUPPORTED where the file was made for another shape of model.
  Adapter(const base::Source& source, const ModelSpec& spec, base::Pool& pool, std::pmr::memory_resource* memory);

  std::span<const kernels::LowRank> changes() const { return changes_; }  // by slot_number()
  uint32_t rank() const { return rank_; }        // the largest
  uint32_t width() const { return width_; }      // of all changes of a layer together, the most of any
  uint32_t n_matrices() const { return n_matrices_; }
  uint64_t bytes() const { return block_.size() + changes_.size() * sizeof(kernels::LowRank); }
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  std::pmr::vector<kernels::LowRank> changes_;
  base::Buffer block_;
  uint32_t rank_ = 0, width_ = 0, n_matrices_ = 0;
  uint64_t fingerprint_ = 0;
};

}  // namespace gptq::model
