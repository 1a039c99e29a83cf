// SPDX-License-Identifier: Apache-2.0
// What an engine is asked to hold: gptq_engine_params with every default filled in.
#pragma once
#include "device/device.h"
#include "gptq/gptq.h"
#include "model/spec.h"

namespace gptq::engine {

struct EngineShape {
  uint32_t max_sessions, ctx_tokens, page_tokens, batch_tokens, logits_rows, n_pages;
  uint32_t first_device_layer;  // of the model
  device::Activations activations;
  kernels::KvKind kv_kind;     // on the host; on a GPU float16 stands in for float32

  uint32_t pages_per_session() const { return (ctx_tokens + page_tokens - 1) / page_tokens; }
  uint32_t max_logits() const;  // rows of logits computed at a time
};
// Of a model's matrices.
struct WeightShape {
  uint32_t columns = 0;  // the most
  bool dense = false;    // some in the layers are not quantized
};
// Fails with INVALID_ARGUMENT and UNSUPPORTED.
EngineShape make_shape(const gptq_engine_params& params, const model::ModelSpec& spec, uint32_t first_device_layer);
// Bytes of one layer's keys, or values, in a page on the host; of a page of the layers on the host; of a page of all layers.
uint64_t host_half_bytes(const EngineShape& shape, const model::ModelSpec& spec);
uint64_t host_page_bytes(const EngineShape& shape, const model::ModelSpec& spec);
uint64_t kv_page_bytes(const EngineShape& shape, const model::ModelSpec& spec);

}  // namespace gptq::engine
