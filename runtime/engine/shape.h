// SPDX-License-Identifier: Apache-2.0
// What an engine is asked to hold: gptq_engine_params with every default filled in.
#pragma once
#include <algorithm>

#include "device/cpu/cpu_device.h"
#include "engine/kv_layout.h"
#include "gptq/gptq.h"
#include "model/model.h"

namespace gptq::engine {

struct EngineShape {
  uint32_t max_sessions, ctx_tokens, page_tokens, batch_tokens, logits_rows, best_logprobs, n_pages;
  model::Placements placements;  // the model's
  uint32_t low_rank_width;      // of adapters there is room for from the beginning: the ranks of a layer's matrices
  device::Activations activations;
  kernels::KvKinds kv_kinds;    // on the host; on a GPU float16 stands in for float32

  uint32_t pages_per_session() const { return (ctx_tokens + page_tokens - 1) / page_tokens; }
  uint32_t max_logits() const;  // rows of logits computed at a time
};
// Numbers a row of what the host gets of a model: logits, or hidden states in their place.
inline uint32_t logits_width(const model::ModelSpec& spec) { return std::max(spec.n_vocab, spec.n_embd); }
// Of a model's matrices.
struct WeightShape {
  uint32_t columns = 0;         // the most
  uint32_t expert_columns = 0;  // of experts'
  bool dense = false;           // some in the layers are not quantized
  void add(const model::SlotId& id, uint32_t k_padded, kernels::Kind kind);
};
WeightShape weight_shape(const model::Model& model);
// What a CPU computes for so many rows.
device::CpuLimits cpu_limits(const model::ModelSpec& spec, const WeightShape& weights, uint32_t rows, device::Activations activations, uint32_t ctx_tokens);
constexpr uint64_t part_for_activations = 32;  // of a GPU's memory, where nothing is said about batch_tokens
// device_bytes: the memory of the smallest GPU, as far as it may be used. Fails with INVALID_ARGUMENT and UNSUPPORTED.
EngineShape make_shape(const gptq_engine_params& params, const model::ModelSpec& spec, model::Placements placements, uint64_t device_bytes);
// Of the layers on the host, and of those on a GPU.
KvLayout host_layout(const EngineShape& shape, const model::ModelSpec& spec);
KvLayout gpu_layout(const EngineShape& shape, const model::ModelSpec& spec, const model::Placement& layers);
// All pages and states on the host.
uint64_t host_kv_bytes(const EngineShape& shape, const model::ModelSpec& spec);

}  // namespace gptq::engine
