// SPDX-License-Identifier: Apache-2.0
#include "quantize/replay.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"

namespace gptq::quantize {
namespace {

constexpr uint32_t page_tokens = 64, wanted_tokens = 2048;

uint32_t inner_width(const model::ModelSpec& spec) { return std::max(spec.n_ff, spec.n_heads * spec.head_dim); }
uint64_t page_bytes(const model::ModelSpec& spec) {
  return uint64_t{2} * page_tokens * spec.n_kv_heads * kernels::kv_row_bytes(kernels::KvKind::f32, spec.head_dim);
}

}  // namespace

Plan::Plan(std::span<const uint32_t> rows, std::pmr::memory_resource* memory) : chunks(memory), pages_(memory) {
  for (const uint32_t n : rows) {
    if (chunks.empty() || chunks.back().n_tokens + n > wanted_tokens) chunks.emplace_back(n_tokens, memory);
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
      workspace(spec, plan.chunk_tokens, 0, arena),
      device({plan.chunk_tokens, 0, device::Activations::f32, 0, spec.n_heads, spec.head_dim, plan.row_tokens}, arena),  // dense matrices gather nothing, nor is anything normed on the way
      kv(arena.take<std::byte>(base::mul(plan.chunk_pages, page_bytes(spec)))) {}

Replay::Replay(const model::ModelSpec& spec, const Plan& plan, std::string_view folder, const kernels::Kernels& kernels, base::Pool& pool,
               std::pmr::memory_resource* memory)
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
      forward_(spec, device_, kv_cache(), scratch_.workspace),
      x_(plan.n_tokens, spec.n_embd, folder, memory),
      inner_(plan.n_tokens, inner_width(spec), folder, memory) {}

uint64_t Replay::scratch_bytes(const model::ModelSpec& spec, uint32_t row_tokens) {
  const std::vector<uint32_t> rows(std::max(1u, wanted_tokens / std::max(1u, row_tokens)), std::max(1u, row_tokens));
  base::Arena measure;
  Scratch(spec, Plan(rows, std::pmr::get_default_resource()), measure);
  return measure.used();
}

uint64_t Replay::store_bytes(const model::ModelSpec& spec, uint64_t n_tokens) {
  return base::mul(n_tokens, uint64_t{spec.n_embd} + inner_width(spec), sizeof(float));
}

device::KvCache Replay::kv_cache() const {
  const uint64_t page = page_bytes(spec_);
  return {scratch_.kv, page, 0, page / 2, page_tokens, spec_.n_kv_heads, spec_.head_dim,
          kernels::KvKind::f32};
}

void Replay::load(const Chunk& chunk) { x_.read(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, scratch_.workspace.x); }
void Replay::store(const Chunk& chunk) { x_.write(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_embd, scratch_.workspace.x); }
uint64_t Replay::attended_floats(const Chunk& chunk) const { return uint64_t{chunk.n_tokens} * spec_.n_heads * spec_.head_dim; }

void Replay::embed(const Chunk& chunk, std::span<const int32_t> tokens, const kernels::Matrix& table) {
  device_.embed(table, tokens, scratch_.workspace.x);
  store(chunk);
}

const float* Replay::norm(const Chunk& chunk, const float* weight) {
  const engine::Workspace& ws = scratch_.workspace;
  device_.rms_norm(ws.x, weight, ws.h, chunk.n_tokens, spec_.n_embd, spec_.norm_eps);
  return ws.h;
}

const float* Replay::attention_input(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  return norm(chunk, layer.attn_norm);
}

const float* Replay::attend(const Chunk& chunk, const model::Layer& layer, uint32_t index) {
  attention_input(chunk, layer);
  scratch_.rotation.turn_to(chunk.sequences);
  device_.begin({{}, chunk.sequences, {}, scratch_.rotation.cos, scratch_.rotation.sin});
  forward_.attend(chunk.n_tokens, layer, index, {scratch_.workspace.h});
  inner_.write(chunk.first_token, attended_floats(chunk), scratch_.workspace.attended);
  return scratch_.workspace.attended;
}

const float* Replay::mlp_input(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  inner_.read(chunk.first_token, attended_floats(chunk), scratch_.workspace.attended);
  forward_.attention_output(chunk.n_tokens, layer);
  store(chunk);
  return norm(chunk, layer.mlp_norm);
}

const float* Replay::activate(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  norm(chunk, layer.mlp_norm);
  const engine::Workspace& ws = scratch_.workspace;
  forward_.gate_up(chunk.n_tokens, layer, {ws.h});
  device_.silu_mul(ws.gate, ws.up, chunk.n_tokens, spec_.n_ff);
  inner_.write(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_ff, ws.gate);
  return ws.gate;
}

void Replay::finish(const Chunk& chunk, const model::Layer& layer) {
  load(chunk);
  inner_.read(chunk.first_token, uint64_t{chunk.n_tokens} * spec_.n_ff, scratch_.workspace.gate);
  forward_.mlp_output(chunk.n_tokens, layer, {scratch_.workspace.gate});
  store(chunk);
}

const float* Replay::head_input(const Chunk& chunk, const float* final_norm) {
  load(chunk);
  return norm(chunk, final_norm);
}

}  // namespace gptq::quantize
