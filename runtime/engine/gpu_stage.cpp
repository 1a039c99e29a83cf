// SPDX-License-Identifier: Apache-2.0
#include "engine/gpu_stage.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace gptq::engine {
namespace {

constexpr uint32_t recorded_exactly = 8;  // rows up to which every number is recorded; behind them the multiples
constexpr uint32_t whole_rows_max = 16;
constexpr uint32_t layers_at_once = 4;  // a quantum of a step with a budget, and a graph

uint32_t round_up(uint32_t rows) { return (rows + recorded_exactly - 1) / recorded_exactly * recorded_exactly; }

// The largest number of rows that is recorded. Rows that are added have to be embedded on a GPU, and come from there, as well.
uint32_t recorded_rows(const EngineShape& shape, const model::Placement& layers) {
  const model::Placement host = host_part(shape.placements);
  const bool behind_host = host.n_layers() && host.first_layer < layers.first_layer;
  const uint32_t most = behind_host ? recorded_exactly : std::min(device::recorded_rows_max, shape.batch_tokens / recorded_exactly * recorded_exactly);
  return shape.max_sessions <= recorded_exactly ? shape.max_sessions : std::min(round_up(shape.max_sessions), most);
}

device::GpuLimits limits_of(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights, const model::Placement& stage) {
  const uint32_t gate = spec.attention_gate ? spec.n_heads * spec.head_dim : 0;
  uint32_t widest = std::max({(spec.n_heads + 2 * spec.n_kv_heads) * spec.head_dim + gate, spec.n_vocab, spec.n_embd, spec.n_embed});
  for (const model::LayerSpec& layer : spec.layers) widest = std::max(widest, 2 * layer.n_ff);
  device::GpuLimits limits{{shape.batch_tokens, weights.columns, widest, spec.n_heads, spec.n_kv_heads, spec.head_dim, shape.ctx_tokens,
           shape.activations == device::Activations::f32, weights.dense},
          std::max(shape.max_sessions, recorded_rows(shape, stage)), shape.page_tokens, shape.pages_per_session(), shape.max_logits(), stage.end_layer == spec.n_layers ? logits_width(spec) : 0};
  for (const model::Rope& rope : spec.ropes) limits.rope_pairs[limits.n_ropes++] = rope.dim / 2;
  limits.alibi_slopes = spec.alibi_slopes;
  limits.prepares = spec.beyond_llama;
  if (stage.first_layer > 0) limits.uploaded = uint64_t{shape.batch_tokens} * spec.n_embd;
  return limits;
}

uint32_t n_logits(const EngineShape& shape, const model::ModelSpec& spec, const model::Placement& stage) {
  return stage.end_layer == spec.n_layers ? shape.max_logits() : 0;
}

uint64_t workspace_bytes(const EngineShape& shape, const model::ModelSpec& spec, const model::Placement& stage) {
  base::Arena measure;
  Workspace(spec, shape.batch_tokens, n_logits(shape, spec, stage), measure);
  return measure.used();
}

}  // namespace

uint64_t GpuStage::scratch_bytes(const EngineShape& shape, const model::ModelSpec& spec, const WeightShape& weights, const model::Placement& layers,
                                 const device::Gpu& gpu) {
  return base::add(workspace_bytes(shape, spec, layers), device::GpuDevice::device_bytes(gpu, limits_of(shape, spec, weights, layers)));
}

GpuStage::GpuStage(const EngineShape& shape, const model::Model& model, const model::Placement& layers, const device::Gpu& gpu, const Routing& routing,
                   Stage* before, std::pmr::memory_resource* memory)
    : Stage(layers),
      gpu_(gpu),
      model_(model),
      shape_(shape),
      before_(before),
      layout_(gpu_layout(shape, model.spec, layers)),
      memory_(gpu, workspace_bytes(shape, model.spec, layers)),
      kv_memory_(gpu, base::mul(layout_.page_bytes(), shape.n_pages)),
      page_(gpu, layout_.page_bytes(), device::GpuMemory::host),
      workspace_([&] {
        base::Arena arena(memory_.data());
        return Workspace(model.spec, shape.batch_tokens, n_logits(shape, model.spec, layers), arena);
      }()),
      device_(gpu, limits_of(shape, model.spec, weight_shape(model), layers), memory),
      forward_(model.spec, device_, layout_, kv_memory_.data(), workspace_, routing) {
  gpu.table().clear(&gpu.stream(), kv_memory_.data(), kv_memory_.bytes());
  record();
}

uint32_t GpuStage::end_of_quantum(uint32_t first) const { return std::min(layers().end_layer, first + layers_at_once); }
uint32_t GpuStage::n_quanta() const { return (layers().n_layers() + layers_at_once - 1) / layers_at_once; }

void GpuStage::compute_layers(uint32_t rows, uint32_t first, uint32_t end) {
  for (uint32_t i = first; i < end; ++i) forward_.layer(rows, model_.layers[i], i);
}

void GpuStage::record() {
  const model::Placement& stage = layers();
  for (uint32_t rows = 1; rows <= recorded_rows(shape_, stage); rows += rows < recorded_exactly ? 1 : recorded_exactly) {
    for (uint32_t first = stage.first_layer; first < stage.end_layer; first = end_of_quantum(first))
      device_.record(key_of_layers(rows, first), rows, false, [&] { compute_layers(rows, first, end_of_quantum(first)); });
    if (is_last() && rows <= recorded_exactly) device_.record(key_of_logits(rows), rows, false, [&] { forward_.logits(0, rows, model_); });
  }
  for (uint32_t rows = 1; rows <= std::min({whole_rows_max, shape_.max_sessions, shape_.max_logits()}); ++rows)
    for (const bool to_token : {false, true}) {
      if (to_token && !is_last()) continue;
      device_.record(key_of_batch(rows, to_token), rows, true, [&] {
        if (!before_) forward_.embed(rows, model_);
        compute_layers(rows, stage.first_layer, stage.end_layer);
        if (is_last()) forward_.logits(0, rows, model_);
        if (to_token) device_.best_tokens(workspace_.logits, rows, model_.spec.n_vocab);
      });
    }
}

void GpuStage::begin(const device::Batch& batch) {
  n_rows_ = batch.n_rows();
  one_row_each_ = n_rows_ == batch.sequences.size();
  padded_ = one_row_each_ ? device_.padded_rows(n_rows_) : n_rows_;
  device_.begin(batch);
  if (before_) take_input();
  else forward_.embed(padded_, model_);
}

void GpuStage::take_input() {
  if (GpuStage* const other = before_->gpu(); other && device_.follows(other->device_))
    device_.take(other->device_, other->workspace_.x, before_->left_on_host(), n_output(), workspace_.x);
  else
    device_.upload(before_->left_on_host(), uint64_t{n_rows_} * model_.spec.n_embd, workspace_.x);
}

uint32_t GpuStage::compute(uint32_t from) {
  const uint32_t end = end_of_quantum(from);
  if (!one_row_each_ || !device_.replay(key_of_layers(padded_, from))) compute_layers(n_rows_, from, end);
  return end;
}

// From GPU to GPU directly, or if that cannot be, by way of the host: in the streams' order where both are of one backend.
void GpuStage::go_on_with(const Stage& next) {
  const GpuStage* const other = next.gpu();
  next_follows_ = other && other->device_.follows(device_);
  if (!next_follows_ || !other->device_.reaches(device_))
    left_ = device::GpuMemory(gpu_, uint64_t{shape_.batch_tokens} * model_.spec.n_embd * sizeof(float), device::GpuMemory::host);
}

bool GpuStage::leave() {
  if (left_.bytes()) device_.download(workspace_.x, n_output(), reinterpret_cast<float*>(left_.data()));
  return next_follows_;
}

void GpuStage::copy_page(uint32_t from, uint32_t to) { gpu_.table().copy(&gpu_.stream(), page_at(to), page_at(from), layout_.page_bytes()); }

void GpuStage::read_kv(uint32_t page, uint32_t n_tokens, const Pieces& use) {
  gpu_.table().copy_out(&gpu_.stream(), page_.data(), page_at(page), layout_.page_bytes());
  finish(UINT32_MAX);
  layout_.for_each_piece(n_tokens, [&](uint64_t offset, uint64_t size) { use({page_.data() + offset, static_cast<size_t>(size)}); });
}

void GpuStage::write_kv(uint32_t page, uint32_t n_tokens, const Pieces& fill) {
  std::memset(page_.data(), 0, page_.bytes());
  layout_.for_each_piece(n_tokens, [&](uint64_t offset, uint64_t size) { fill({page_.data() + offset, static_cast<size_t>(size)}); });
  gpu_.table().copy_in(&gpu_.stream(), page_at(page), page_.data(), layout_.page_bytes());
  finish(UINT32_MAX);
}

Logits GpuStage::logits(uint32_t first, uint32_t count, uint32_t n_candidates) {
  const bool all_rows = one_row_each_ && count == n_rows_;
  if (!all_rows || !device_.replay(key_of_logits(count))) forward_.logits(first, count, model_);
  return await(count, n_candidates, n_candidates == 1 ? device_.best_tokens(workspace_.logits, count, model_.spec.n_vocab) : nullptr);
}

Logits GpuStage::hidden(uint32_t first, uint32_t count) {
  forward_.hidden(first, count, model_);
  return {.n_hidden = count, .hidden = device_.download(workspace_.h, uint64_t{count} * model_.spec.n_embd)};
}

// A batch of one row a sequence; on the last stage all have logits.
bool GpuStage::runs_whole(const device::Batch& batch, uint32_t n_candidates) const {
  const uint32_t rows = batch.n_rows();
  return rows == batch.sequences.size() && device_.has(key_of_batch(rows, is_last() && n_candidates == 1));
}

Logits GpuStage::run(const device::Batch& batch, uint32_t n_candidates) {
  n_rows_ = padded_ = batch.n_rows();
  device_.begin_whole(batch);
  if (before_) take_input();
  device_.replay_whole(key_of_batch(n_rows_, is_last() && n_candidates == 1));
  if (!is_last()) return {};
  return await(n_rows_, n_candidates, n_candidates == 1 ? device_.best() : nullptr);
}

// What of so many rows of logits the host gets.
Logits GpuStage::await(uint32_t count, uint32_t n_candidates, const int32_t* best) {
  const uint32_t n_vocab = model_.spec.n_vocab;
  Logits logits{.n = count, .n_candidates = n_candidates, .tokens = best};
  if (!best && n_candidates > 1) logits.candidates = device_.candidates(workspace_.logits, count, n_vocab, n_candidates);
  if (!best && !logits.candidates) logits.all = device_.download(workspace_.logits, uint64_t{count} * n_vocab);
  return logits;
}

}  // namespace gptq::engine
