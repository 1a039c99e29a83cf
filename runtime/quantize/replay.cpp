// SPDX-License-Identifier: Apache-2.0
#include "quantize/replay.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "engine/shape.h"

namespace gptq::quantize {
namespace {

constexpr uint32_t page_tokens = 64, wanted_tokens = 2048;

using model::Residual;
using model::Role;

uint32_t inner_width(const model::ModelSpec& spec) {
  uint32_t width = 0;
  for (const model::LayerSpec& layer : spec.layers)
    for (const Role role : {Role::o, Role::down})
      if (const model::WeightSize size = model::info_of(role).size(spec, layer); size.n) width = std::max(width, size.k);
  return width;
}
bool is_parallel(const model::ModelSpec& spec) { return spec.residual == Residual::parallel; }

// One layer after another uses the same memory.
engine::KvLayout layout_of(const model::ModelSpec& spec, uint32_t layer) {
  return {spec, layer, layer + 1, page_tokens, kernels::alike(kernels::KvKind::f32), engine::KvLayout::Latents::expanded};
}
template <class Size>
uint64_t largest(const model::ModelSpec& spec, Size&& size) {
  uint64_t bytes = 0;
  for (uint32_t layer = 0; layer < spec.n_layers; ++layer) bytes = std::max(bytes, size(layout_of(spec, layer)));
  return bytes;
}
uint64_t page_bytes(const model::ModelSpec& spec) { return largest(spec, [](const engine::KvLayout& layout) { return layout.page_bytes(); }); }
uint64_t state_bytes(const model::ModelSpec& spec) { return largest(spec, [](const engine::KvLayout& layout) { return layout.state_bytes(); }); }

}  // namespace

Plan::Plan(std::span<const uint32_t> rows, std::pmr::memory_resource* memory, uint32_t n_apart, uint32_t logits)
    : chunks(memory), logits(logits), pages_(memory) {
  for (const uint32_t n : rows) {
    const bool apart = chunks.size() == 1 && chunks[0].sequences.size() == n_apart;
    if (chunks.empty() || apart || chunks.back().n_tokens + n > wanted_tokens) chunks.emplace_back(n_tokens, memory);
    Chunk& chunk = chunks.back();
    chunk.sequences.push_back({chunk.n_tokens, n, 0, nullptr});
    chunk.n_tokens += n;
    chunk.n_pages += (n + page_tokens - 1) / page_tokens;
    n_tokens += n;
    row_tokens = std::max(row_tokens, n);
    chunk_tokens = std::max(chunk_tokens, chunk.n_tokens);
    chunk_pages = std::max(chunk_pages, chunk.n_pages);
  }
  pages_.resize(chunk_pages);
  std::iota(pages_.begin(), pages_.end(), 0u);
  for (Chunk& chunk : chunks) {
    const uint32_t* pages = pages_.data();
    for (device::Sequence& s : chunk.sequences) {
      s.pages = pages;
      pages += (s.n_rows + page_tokens - 1) / page_tokens;
    }
  }
}

Replay::Scratch::Scratch(const model::ModelSpec& spec, const Plan& plan, base::Arena& arena)
    : rotation(spec, plan.row_tokens, plan.chunk_tokens, arena),
      workspace(spec, plan.chunk_tokens, plan.logits, arena),
      routing(spec, plan.chunk_tokens, arena),
      device(engine::cpu_limits(spec, {}, plan.chunk_tokens, device::Activations::f32, plan.row_tokens), arena),  // dense matrices gather nothing
      kv(arena.take<std::byte>(base::mul(plan.chunk_pages, page_bytes(spec)))),
      state(arena.take<std::byte>(state_bytes(spec))) {}

Replay::Stores::Stores(const model::ModelSpec& spec, uint64_t n_tokens, std::string_view folder, std::pmr::memory_resource* memory)
    : x(n_tokens, spec.n_embd, folder, memory), inner(n_tokens, inner_width(spec), folder, memory) {
  if (is_parallel(spec)) branch.emplace(n_tokens, spec.n_embd, folder, memory);
}

Replay::Replay(const model::ModelSpec& spec, const Plan& plan, uint64_t original_tokens, std::string_view folder, const kernels::Kernels& kernels,
               base::Pool& pool, std::pmr::memory_resource* memory)
    : spec_(spec),
      memory_([&] {
        base::Arena measure;
        Scratch(spec, plan, measure);
        return base::Buffer(memory, base::to_size(measure.used()));
      }()),
      scratch_([&] {
        base::Arena arena(memory_.data());
        return Scratch(spec, plan, arena);
      }()),
      device_(kernels, pool, scratch_.device, memory),
      streams_{{spec, plan.n_tokens, folder, memory}, {spec, original_tokens, folder, memory}} {
  begin_layer(0);
}

uint32_t Replay::chunk_tokens(uint32_t row_tokens) {
  const uint32_t n = std::max(1u, row_tokens);
  return std::max(1u, wanted_tokens / n) * n;
}

uint64_t Replay::scratch_bytes(const model::ModelSpec& spec, uint32_t row_tokens) {
  const std::vector<uint32_t> rows(chunk_tokens(row_tokens) / std::max(1u, row_tokens), std::max(1u, row_tokens));
  base::Arena measure;
  Scratch(spec, Plan(rows, std::pmr::get_default_resource()), measure);
  return measure.used();
}

uint64_t Replay::store_bytes(const model::ModelSpec& spec, uint64_t n_tokens) {
  return base::mul(n_tokens, uint64_t{spec.n_embd} * (is_parallel(spec) ? 2 : 1) + inner_width(spec), sizeof(float));
}

void Replay::load(const Chunk& chunk) { now_->x.read(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, scratch_.workspace.x); }
void Replay::store(const Chunk& chunk) { now_->x.write(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, scratch_.workspace.x); }

void Replay::begin_layer(uint32_t index) {
  layer_ = index;
  forward_.emplace(spec_, device_, layout_of(spec_, index), scratch_.kv, scratch_.workspace, scratch_.routing);
}

void Replay::begin_chunk(const Chunk& chunk) {
  sequences_.assign(chunk.sequences.begin(), chunk.sequences.end());
  for (device::Sequence& s : sequences_) s.next_state = scratch_.state;
  scratch_.rotation.turn_to(sequences_);
  device_.begin({{}, sequences_, {}, scratch_.rotation.angles()});
}

template <class Step>
void Replay::tapped(const Chunk& chunk, Tap& tap, const float* token_weights, Step&& step) {
  struct Set {
    PanelDevice& device;
    Set(PanelDevice& device, Tap* tap) : device(device) { device.set_tap(tap); }
    ~Set() { device.set_tap(nullptr); }
  } const set(device_, &tap);
  tap.begin_chunk(token_weights, chunk.n_tokens);
  try {
    step();
  } catch (const Tap::Enough&) {
  }
}

void Replay::embed(const Chunk& chunk, std::span<const int32_t> tokens, const model::Ends& ends) {
  device_.begin({tokens, chunk.sequences, {}, {}});
  forward_->embed(chunk.n_tokens, ends);
  store(chunk);
}

void Replay::embed_to(const Chunk& chunk, std::span<const int32_t> tokens, const model::Ends& ends, float* x) {
  device_.begin({tokens, chunk.sequences, {}, {}});
  forward_->embed(chunk.n_tokens, ends);
  std::copy_n(scratch_.workspace.x, size_t{chunk.n_tokens} * spec_.n_embd, x);
}

void Replay::pass(const Chunk& chunk, const model::Layer& layer, float* x) {
  const size_t size = size_t{chunk.n_tokens} * spec_.n_embd;
  std::copy_n(x, size, scratch_.workspace.x);
  begin_chunk(chunk);
  forward_->layer(chunk.n_tokens, layer, layer_);
  std::copy_n(scratch_.workspace.x, size, x);
}

void Replay::pass(const Chunk& chunk, const model::Layer& layer, float* x, Tap& tap, const float* token_weights) {
  tapped(chunk, tap, token_weights, [&] { pass(chunk, layer, x); });
}

const float* Replay::logits(const Chunk& chunk, const float* x, std::span<const uint32_t> rows, const model::Ends& ends) {
  std::copy_n(x, size_t{chunk.n_tokens} * spec_.n_embd, scratch_.workspace.x);
  device_.begin({{}, chunk.sequences, rows, {}});
  forward_->logits(0, static_cast<uint32_t>(rows.size()), ends);
  return scratch_.workspace.logits;
}

const float* Replay::norm(const Chunk& chunk, const model::Linear& weights, float* out) {
  const engine::Workspace& ws = scratch_.workspace;
  if (!weights) return ws.x;
  device_.norm(ws.x, forward_->norm_of(weights), out, chunk.n_tokens, spec_.n_embd);
  return out;
}

// ws.branch -> x
void Replay::add_branch(const Chunk& chunk, const model::Linear& out_norm) {
  const engine::Workspace& ws = scratch_.workspace;
  if (out_norm) device_.norm(ws.branch, forward_->norm_of(out_norm), ws.branch, chunk.n_tokens, spec_.n_embd);
  device_.add(ws.x, ws.branch, uint64_t{chunk.n_tokens} * spec_.n_embd, spec_.residual_scale);
}

const float* Replay::mixer_input(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  if (spec_.residual == Residual::norm_after_add) return scratch_.workspace.x;
  return norm(chunk, layer[Role::attn_norm], scratch_.workspace.h);
}

const float* Replay::mix(const Chunk& chunk, const model::Layer& layer) {
  const float* input = mixer_input(chunk, layer);
  begin_chunk(chunk);
  forward_->mix(chunk.n_tokens, layer, layer_, {.x = input});
  now_->inner.write(chunk.first_token, uint64_t{chunk.n_tokens} * layer[Role::o].w.k, scratch_.workspace.attended);
  return scratch_.workspace.attended;
}

void Replay::tap_mixer(const Chunk& chunk, const model::Layer& layer, Tap& tap, const float* token_weights) {
  const float* input = mixer_input(chunk, layer);
  begin_chunk(chunk);
  tapped(chunk, tap, token_weights, [&] { forward_->mix(chunk.n_tokens, layer, layer_, {.x = input}); });
}

const float* Replay::mlp_norm(const Chunk& chunk, const model::Layer& layer) {
  const bool own = static_cast<bool>(layer[Role::mlp_norm]);
  switch (spec_.residual) {
    case Residual::sequential: return norm(chunk, layer[Role::mlp_norm], scratch_.workspace.h);
    case Residual::parallel: return norm(chunk, layer[own ? Role::mlp_norm : Role::attn_norm], scratch_.workspace.h);
    case Residual::norm_after_add:
    case Residual::from_norm: return scratch_.workspace.x;  // it was normed when it was stored
  }
  return nullptr;
}

const float* Replay::mlp_input(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  return mlp_norm(chunk, layer);
}

const float* Replay::add_mixed(const Chunk& chunk, const model::Layer& layer) {
  const engine::Workspace& ws = scratch_.workspace;
  load(chunk);
  now_->inner.read(chunk.first_token, uint64_t{chunk.n_tokens} * layer[Role::o].w.k, ws.attended);
  if (is_parallel(spec_)) {
    forward_->mix_output(chunk.n_tokens, layer, ws.branch, false);
    if (const model::Linear& out_norm = layer[Role::attn_out_norm])
      device_.norm(ws.branch, forward_->norm_of(out_norm), ws.branch, chunk.n_tokens, spec_.n_embd);
    now_->branch->write(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, ws.branch);
    return mlp_norm(chunk, layer);
  }
  if (spec_.residual == Residual::from_norm) norm(chunk, layer[Role::attn_norm], ws.x);
  const bool plain = !layer[Role::attn_out_norm] && spec_.residual_scale == 1;
  forward_->mix_output(chunk.n_tokens, layer, plain ? ws.x : ws.branch, plain);
  if (!plain) add_branch(chunk, layer[Role::attn_out_norm]);
  if (spec_.residual == Residual::norm_after_add) norm(chunk, layer[Role::attn_norm], ws.x);
  if (spec_.residual == Residual::from_norm) norm(chunk, layer[Role::mlp_norm], ws.x);
  store(chunk);
  return mlp_norm(chunk, layer);
}

void Replay::tap_experts(const Chunk& chunk, const model::Layer& layer, const float* input, Tap& tap, const float* token_weights) {
  tapped(chunk, tap, token_weights, [&] { forward_->experts(chunk.n_tokens, layer, input, scratch_.workspace.branch, false); });
}

const float* Replay::activate(const Chunk& chunk, const model::Layer& layer, const model::Linear& gate, const model::Linear& up) {
  const engine::Workspace& ws = scratch_.workspace;
  const device::Product products[] = {{&gate.w, gate.bias, ws.gate}, {&up.w, up.bias, ws.up}};
  device_.prepare({.x = mlp_input(chunk, layer)}, chunk.n_tokens);
  device_.matmul(std::span(products).subspan(spec_.gated ? 0 : 1), false);
  return device_.finish_input(forward_->activated(layer), chunk.n_tokens, up.w.n);
}

const float* Replay::activate(const Chunk& chunk, const model::Layer& layer) {
  const float* activated = activate(chunk, layer, layer[Role::gate], layer[Role::up]);
  now_->inner.write(chunk.first_token, uint64_t{chunk.n_tokens} * layer[Role::down].w.k, activated);
  return activated;
}

void Replay::finish(const Chunk& chunk, const model::Layer& layer) {
  const engine::Workspace& ws = scratch_.workspace;
  const bool experts = !layer.experts.empty(), plain = !experts && !is_parallel(spec_) && !layer[Role::mlp_out_norm] && spec_.residual_scale == 1;
  float* to = plain ? ws.x : ws.branch;
  load(chunk);
  if (is_parallel(spec_)) now_->branch->read(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, ws.branch);
  if (experts) {
    forward_->experts(chunk.n_tokens, layer, mlp_norm(chunk, layer), to, is_parallel(spec_));
  } else {
    now_->inner.read(chunk.first_token, uint64_t{chunk.n_tokens} * layer[Role::down].w.k, ws.gate);
    forward_->mlp_output(chunk.n_tokens, layer, {.x = ws.gate}, to, plain || is_parallel(spec_));
  }
  if (!plain) add_branch(chunk, layer[Role::mlp_out_norm]);
  if (spec_.residual == Residual::norm_after_add) norm(chunk, layer[Role::mlp_norm], ws.x);
  store(chunk);
}

bool Replay::adds_to_residual(const model::Layer& layer, Role role) const {
  if (role == Role::o) return spec_.residual != Residual::from_norm && !layer[Role::attn_out_norm];
  return role == Role::down && !layer[Role::mlp_out_norm];
}

const float* Replay::residual(const Chunk& chunk, Role role) {
  const engine::Workspace& ws = scratch_.workspace;
  const uint64_t count = uint64_t{chunk.n_tokens} * spec_.n_embd;
  if (spec_.residual_scale != 1) std::transform(ws.x, ws.x + count, ws.x, [&](float x) { return x / spec_.residual_scale; });
  if (role == Role::down && is_parallel(spec_)) {
    now_->branch->read(chunk.first_token, count, ws.branch);
    device_.add(ws.x, ws.branch, count, 1);
  }
  return ws.x;
}

const float* Replay::head_input(const Chunk& chunk, const model::Ends& ends) {
  const engine::Workspace& ws = scratch_.workspace;
  load(chunk);
  const float* input = norm(chunk, ends.final_norm, ws.h);
  if (!ends.head_proj) return input;
  const device::Product product{&ends.head_proj.w, ends.head_proj.bias, ws.embedded};
  device_.prepare({.x = input}, chunk.n_tokens);
  device_.matmul({&product, 1}, false);
  return ws.embedded;
}

}  // namespace gptq::quantize
