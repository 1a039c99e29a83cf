// SPDX-License-Identifier: Apache-2.0
#include "engine/gpu_part.h"

#include <algorithm>

#include "base/checked.h"

namespace gptq::engine {
namespace {

constexpr uint32_t recorded_exactly = 8;  // rows up to which every number is recorded; behind them the multiples
constexpr uint32_t whole_rows_max = 16;

uint32_t round_up(uint32_t rows) { return (rows + recorded_exactly - 1) / recorded_exactly * recorded_exactly; }

// The largest number of rows that is recorded. Rows that are added have to be embedded on the GPU as well.
uint32_t recorded_rows(const EngineShape& shape) {
  const uint32_t most = shape.first_device_layer ? recorded_exactly : std::min(device::recorded_rows_max, shape.batch_tokens / recorded_exactly * recorded_exactly);
  return shape.max_sessions <= recorded_exactly ? shape.max_sessions : std::min(round_up(shape.max_sessions), most);
}

device::CudaLimits limits_of(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights) {
  const uint32_t gate = spec.attention_gate ? spec.n_heads * spec.head_dim : 0;
  uint32_t widest = std::max({(spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim + gate, spec.n_vocab, spec.n_embd, spec.n_embed});
  for (const model::LayerSpec& layer : spec.layers) widest = std::max(widest, 2 * layer.n_ff);
  device::CudaLimits limits{{shape.batch_tokens, weights.columns, widest, spec.n_heads, spec.n_kv_heads, spec.head_dim, shape.ctx_tokens,
           shape.activations == device::Activations::f32, weights.dense},
          std::max(shape.max_sessions, recorded_rows(shape)), shape.page_tokens, shape.pages_per_session(), shape.max_logits(), std::max(spec.n_vocab, spec.n_embd)};
  for (const model::Rope& rope : spec.ropes) limits.rope_pairs[limits.n_ropes++] = rope.dim / 2;
  limits.alibi_slopes = spec.alibi_slopes;
  limits.prepares = spec.beyond_llama;
  if (shape.first_device_layer > 0) limits.uploaded = uint64_t{shape.batch_tokens} * spec.n_embd;
  return limits;
}

uint64_t workspace_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  base::Arena measure;
  Workspace(spec, shape.batch_tokens, shape.max_logits(), measure);
  return measure.used();
}

}  // namespace

uint64_t GpuPart::scratch_bytes(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights, const device::Gpu& gpu) {
  return base::add(workspace_bytes(shape, spec), device::CudaDevice::device_bytes(gpu, limits_of(shape, spec, weights)));
}

GpuPart::GpuPart(const EngineShape& shape, const model::Model& model, const WeightShape& weights, const device::Gpu& gpu, std::pmr::memory_resource* memory)
    : memory_(gpu, workspace_bytes(shape, model.spec)),
      kv_memory_(gpu, base::mul(gpu_layout(shape, model.spec).page_bytes(), shape.n_pages)),
      workspace_([&] {
        base::Arena arena(memory_.data());
        return Workspace(model.spec, shape.batch_tokens, shape.max_logits(), arena);
      }()),
      device_(gpu, limits_of(shape, model.spec, weights), memory) {
  gpu.table().clear(&gpu.stream(), kv_memory_.data(), kv_memory_.bytes());
}

void GpuPart::record(Forward& forward, const model::Model& model, const EngineShape& shape) {
  const uint32_t n_layers = model.spec.n_layers;
  const auto layers = [&](uint32_t rows, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; ++i) forward.layer(rows, model.layers[i], i);
  };
  for (uint32_t rows = 1; rows <= recorded_rows(shape); rows += rows < recorded_exactly ? 1 : recorded_exactly) {
    for (uint32_t first = shape.first_device_layer; first < n_layers; first += gpu_layers_at_once)
      device_.record(key_of_layers(rows, first), rows, false, [&] { layers(rows, first, std::min(n_layers, first + gpu_layers_at_once)); });
    if (rows > recorded_exactly) continue;
    device_.record(key_of_logits(rows), rows, false, [&] { forward.logits(0, rows, model); });
  }
  if (shape.first_device_layer > 0) return;
  for (uint32_t rows = 1; rows <= std::min({whole_rows_max, shape.max_sessions, shape.max_logits()}); ++rows)
    for (const bool to_token : {false, true})
      device_.record(key_of_batch(rows, to_token), rows, true, [&] {
        forward.embed(rows, model);
        layers(rows, 0, n_layers);
        forward.logits(0, rows, model);
        if (to_token) device_.best_tokens(workspace_.logits, rows, model.spec.n_vocab);
      });
}

}  // namespace gptq::engine
