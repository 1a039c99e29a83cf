// SPDX-License-Identifier: Apache-2.0
// Multi-head latent attention keeps kv_rank numbers a token. Queries are brought to them by k_b, and what attention gives from them by
// v_b, head by head: for that both are held as plain matrices. 16 bits, or 32 in exact mode.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "model/model.h"

namespace gptq::engine {

class Absorbed {
 public:
  Absorbed(const model::ModelSpec& spec, bool exact, base::Arena& arena);
  void fill(const model::Model& model, const kernels::Kernels& kernels, base::Pool& pool) const;

  bool any() const { return keys_; }
  kernels::Kind kind() const { return kind_; }
  const void* keys(uint32_t layer) const { return keys_ + layer * key_bytes_; }        // [n_heads][kv_rank][d_nope]
  const void* values(uint32_t layer) const { return values_ + layer * value_bytes_; }  // [n_heads][d_v][kv_rank]

 private:
  kernels::Kind kind_;
  uint64_t key_bytes_ = 0, value_bytes_ = 0;
  std::byte* keys_ = nullptr;
  std::byte* values_ = nullptr;
};

}  // namespace gptq::engine
