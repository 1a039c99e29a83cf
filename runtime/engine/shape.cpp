// SPDX-License-Identifier: Apache-2.0
#include "engine/shape.h"

#include <algorithm>

#include "base/checked.h"
#include "base/failure.h"
#include "engine/forward.h"
#include "model/adapter.h"

namespace gptq::engine {
namespace {

constexpr uint32_t default_ctx = 4096, default_batch = 256, default_page = 64;
constexpr uint32_t ctx_max = 1u << 24, sessions_max = 4096, batch_max = 8192, logits_rows_max = 8192, best_logprobs_max = 20;

// A GPU reads, and mostly writes out as float16, all weights for every chunk, so that large ones are quicker; their activations get a
// small part of its memory.
constexpr uint32_t default_batch_on_gpu = 2048;

uint32_t default_batch_of(const model::ModelSpec& spec, model::Placements placements, uint64_t device_bytes) {
  uint32_t rows = host_part(placements).n_layers() == 0 ? default_batch_on_gpu : default_batch;
  for (; rows > default_batch; rows /= 2) {
    base::Arena measure;
    Workspace(spec, rows, 0, measure);
    if (measure.used() <= device_bytes / part_for_activations) break;
  }
  return rows;
}

uint32_t in_range(uint32_t value, uint32_t fallback, uint32_t most, std::string_view name) {
  if (value > most) base::fail(GPTQ_E_INVALID_ARGUMENT, name, " = ", value, " is above ", most);
  return value ? value : fallback;
}

// GPTQ_KV_* of the keys, and GPTQ_KV_VALUES_* where values are of another kind. In exact mode the default is float32.
kernels::KvKinds kinds_of(int32_t kv_type, bool exact) {
  if (exact && kv_type == GPTQ_KV_F16) return kernels::alike(kernels::KvKind::f32);
  const int32_t keys = kv_type & 0xff, values = kv_type >> 8 ? (kv_type >> 8) - 1 : keys;
  if (kv_type < 0 || keys > GPTQ_KV_I4 || values > GPTQ_KV_I4) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown kv_type ", kv_type);
  return {static_cast<kernels::KvKind>(keys), static_cast<kernels::KvKind>(values)};
}

// What adapters of this rank have in a layer, at most.
uint32_t low_rank_width(const model::ModelSpec& spec, uint32_t rank) {
  uint32_t most = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    uint32_t n = 0;
    for (auto i = static_cast<uint32_t>(model::first_layer_role); i < static_cast<uint32_t>(model::first_expert_role); ++i)
      n += model::may_change({.role = static_cast<model::Role>(i), .layer = 0}) && model::info_of(static_cast<model::Role>(i)).size(spec, layer).n > 0;
    most = std::max(most, n);
  }
  return most * ((rank + 15) / 16 * 16);
}

}  // namespace

void WeightShape::add(const model::SlotId& id, uint32_t k_padded, kernels::Kind kind) {
  columns = std::max(columns, k_padded);
  if (id.expert != model::no_index) expert_columns = std::max(expert_columns, k_padded);
  dense |= id.layer != model::no_index && model::info_of(id.role).quantizable && !kernels::is_quantized(kind);
}

WeightShape weight_shape(const model::Model& model) {
  WeightShape shape;
  const auto add = [&](const model::Linear& w, const model::SlotId& id) {
    if (w) shape.add(id, w.w.k_padded, w.w.kind);
  };
  for (const model::Linear* w : {&model.embed, &model.head, &model.embed_proj, &model.head_proj}) add(*w, {.role = model::Role::head});
  for (const model::Layer& layer : model.layers) {
    for (auto i = static_cast<uint32_t>(model::first_layer_role); i < static_cast<uint32_t>(model::first_expert_role); ++i)
      if (const auto role = static_cast<model::Role>(i); !model::info_of(role).is_vector()) add(layer[role], {.role = role, .layer = 0});
    for (const model::Expert& expert : layer.experts)
      for (const model::Linear* w : {&expert.gate, &expert.up, &expert.down}) add(*w, {.role = model::Role::expert_up, .layer = 0, .expert = 0});
  }
  return shape;
}

device::CpuLimits cpu_limits(const model::ModelSpec& spec, const WeightShape& weights, uint32_t rows, device::Activations activations, uint32_t ctx_tokens) {
  const uint64_t pairs = uint64_t{rows} * spec.experts.n_active;
  uint32_t widest = std::max({spec.n_embd, spec.experts.n_ff_shared, spec.latent.q_rank, spec.latent.kv_rank});
  for (const model::LayerSpec& layer : spec.layers)
    if (!layer.experts) widest = std::max(widest, layer.n_ff);
  const uint32_t value_dim = std::max({spec.head_dim, spec.latent.d_v, spec.latent.kv_rank});
  return {.rows = rows,
          .packed_rows = static_cast<uint32_t>(std::max<uint64_t>(rows, pairs)),
          .packed_elements = std::max(uint64_t{rows} * weights.columns, pairs * weights.expert_columns),
          .finished = std::max(uint64_t{rows} * widest, pairs * spec.experts.n_ff),
          .activations = activations,
          .n_heads = spec.n_heads,
          .value_dim = value_dim,
          .ctx_tokens = ctx_tokens};
}

// Several even for one session: reading the head's weights once for each guess of speculation would take longer than the guesses save.
uint32_t EngineShape::max_logits() const { return std::max(max_sessions, std::min({std::max(logits_rows, 8u), batch_tokens, 32u})); }

EngineShape make_shape(const gptq_engine_params& params, const model::ModelSpec& spec, model::Placements placements, uint64_t device_bytes) {
  EngineShape shape{};
  shape.placements = placements;
  shape.max_sessions = in_range(params.max_sessions, 1, sessions_max, "max_sessions");
  shape.ctx_tokens = in_range(params.ctx_tokens, std::min(default_ctx, spec.n_ctx_train), ctx_max, "ctx_tokens");
  shape.page_tokens = in_range(params.page_tokens, default_page, 256, "page_tokens");
  if (shape.page_tokens % 16) base::fail(GPTQ_E_INVALID_ARGUMENT, "page_tokens = ", shape.page_tokens, " is not a multiple of 16");
  const uint32_t usual_batch = default_batch_of(spec, placements, device_bytes);
  shape.batch_tokens = in_range(params.batch_tokens, std::min(usual_batch, shape.ctx_tokens), batch_max, "batch_tokens");
  shape.batch_tokens = std::max(shape.batch_tokens, shape.max_sessions);
  shape.low_rank_width = low_rank_width(spec, in_range(params.adapter_rank, 0, model::adapter_rank_max, "adapter_rank"));
  shape.logits_rows = in_range(params.logits_rows, 1, logits_rows_max, "logits_rows");
  if (params.best_logprobs > best_logprobs_max)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "best_logprobs = ", params.best_logprobs, " is more than ", best_logprobs_max);
  shape.best_logprobs = params.best_logprobs;
  const bool exact = params.flags & GPTQ_ENGINE_EXACT, bf16 = params.flags & GPTQ_ENGINE_BF16;
  if (params.flags & ~uint32_t(GPTQ_ENGINE_EXACT | GPTQ_ENGINE_BF16)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown engine flags ", params.flags);
  if (exact && bf16) base::fail(GPTQ_E_INVALID_ARGUMENT, "GPTQ_ENGINE_EXACT and GPTQ_ENGINE_BF16 exclude each other");
  shape.activations = exact ? device::Activations::f32 : bf16 ? device::Activations::bf16 : device::Activations::int8;
  shape.kv_kinds = kinds_of(params.kv_type, exact);
  const auto [keys, values] = shape.kv_kinds;
  if (spec.any(model::Mixer::latent) && (keys != values || keys == kernels::KvKind::i4))
    base::fail(GPTQ_E_UNSUPPORTED, "the KV cache of latent attention is float16, float32 or int8, for keys and values alike: choose another kv_type than ",
               params.kv_type);
  if (!all_on_host(placements) && (keys != values || keys == kernels::KvKind::i4 || (params.kv_type & 0xff) == GPTQ_KV_F32))
    base::fail(GPTQ_E_UNSUPPORTED, "the KV cache of layers on a GPU is float16 or int8, for keys and values alike: choose GPTQ_KV_F16 or GPTQ_KV_I8 as kv_type");
  const uint64_t all = uint64_t(shape.max_sessions) * shape.pages_per_session();
  uint64_t page_bytes = host_layout(shape, spec).page_bytes();
  for (const model::Placement& p : placements)
    if (!p.on_host()) page_bytes = base::add(page_bytes, gpu_layout(shape, spec, p).page_bytes());
  const uint64_t pages = params.kv_bytes && page_bytes ? std::min(all, params.kv_bytes / page_bytes) : all;
  if (pages == 0 || pages > UINT32_MAX)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "the KV arena would have ", pages, " pages of ", page_bytes, " bytes: choose another kv_bytes or ctx_tokens");
  shape.n_pages = static_cast<uint32_t>(pages);
  return shape;
}

KvLayout host_layout(const EngineShape& shape, const model::ModelSpec& spec) {
  const model::Placement layers = host_part(shape.placements);
  return {spec, layers.first_layer, layers.end_layer, shape.page_tokens, shape.kv_kinds};
}

KvLayout gpu_layout(const EngineShape& shape, const model::ModelSpec& spec, const model::Placement& layers) {
  const auto kind = shape.kv_kinds.keys == kernels::KvKind::i8 ? kernels::KvKind::i8 : kernels::KvKind::f16;
  return KvLayout::on_gpu(spec, layers.first_layer, layers.end_layer, shape.page_tokens, kind);
}

uint64_t host_kv_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  const KvLayout layout = host_layout(shape, spec);
  return base::add(base::mul(layout.page_bytes(), shape.n_pages), base::mul(2 * uint64_t{shape.max_sessions}, layout.state_bytes()));
}

}  // namespace gptq::engine
