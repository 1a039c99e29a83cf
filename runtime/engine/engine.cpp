// SPDX-License-Identifier: Apache-2.0
// The engine's memory and its sessions; scheduler.cpp does the work.
#include "engine/engine.h"

#include <algorithm>

#include "base/checked.h"

namespace gptq::engine {
namespace {

constexpr uint32_t default_ctx = 4096, default_batch = 256, default_page = 64;
constexpr uint32_t ctx_max = 1u << 24, sessions_max = 4096, batch_max = 8192, logits_rows_max = 8192;

uint32_t in_range(uint32_t value, uint32_t fallback, uint32_t most, std::string_view name) {
  if (value > most) base::fail(GPTQ_E_INVALID_ARGUMENT, name, " = ", value, " is above ", most);
  return value ? value : fallback;
}

uint32_t columns_max(const model::Model& model) {
  uint32_t most = std::max(model.embed.w.k_padded, model.head.w.k_padded);
  for (const model::Layer& l : model.layers)
    for (const model::Linear* w : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) most = std::max(most, w->w.k_padded);
  return most;
}

uint64_t kv_layer_half(const EngineShape& shape, const model::ModelSpec& spec) {
  return base::mul(spec.n_kv_heads, shape.page_tokens, kernels::kv_row_bytes(shape.kv_kind, spec.head_dim));
}

template <class Scratch>
base::Buffer reserve(const model::ModelSpec& spec, const EngineShape& shape, uint32_t k_padded, std::pmr::memory_resource* memory) {
  base::Arena measure;
  Scratch(spec, shape, k_padded, measure);
  return {memory, base::to_size(measure.used())};
}

}  // namespace

uint32_t EngineShape::max_logits() const { return std::max(max_sessions, std::min({logits_rows, batch_tokens, 32u})); }

EngineShape make_shape(const gptq_engine_params& params, const model::ModelSpec& spec) {
  EngineShape shape{};
  shape.max_sessions = in_range(params.max_sessions, 1, sessions_max, "max_sessions");
  shape.ctx_tokens = in_range(params.ctx_tokens, std::min(default_ctx, spec.n_ctx_train), ctx_max, "ctx_tokens");
  shape.page_tokens = in_range(params.page_tokens, default_page, 256, "page_tokens");
  if (shape.page_tokens % 16) base::fail(GPTQ_E_INVALID_ARGUMENT, "page_tokens = ", shape.page_tokens, " is not a multiple of 16");
  shape.batch_tokens = in_range(params.batch_tokens, std::min(default_batch, shape.ctx_tokens), batch_max, "batch_tokens");
  shape.batch_tokens = std::max(shape.batch_tokens, shape.max_sessions);
  shape.logits_rows = in_range(params.logits_rows, 1, logits_rows_max, "logits_rows");
  if (params.kv_type < GPTQ_KV_F16 || params.kv_type > GPTQ_KV_I8)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown kv_type ", params.kv_type);
  if (params.flags & ~uint32_t(GPTQ_ENGINE_EXACT)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown engine flags ", params.flags);
  shape.exact = params.flags & GPTQ_ENGINE_EXACT;
  shape.kv_kind = shape.exact && params.kv_type == GPTQ_KV_F16 ? kernels::KvKind::f32 : static_cast<kernels::KvKind>(params.kv_type);
  const uint64_t all = uint64_t(shape.max_sessions) * shape.pages_per_session();
  const uint64_t pages = params.kv_bytes ? std::min(all, params.kv_bytes / kv_page_bytes(shape, spec)) : all;
  if (pages == 0 || pages > UINT32_MAX)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "the KV arena would have ", pages, " pages of ", kv_page_bytes(shape, spec),
               " bytes: choose another kv_bytes or ctx_tokens");
  shape.n_pages = static_cast<uint32_t>(pages);
  return shape;
}

uint64_t kv_page_bytes(const EngineShape& shape, const model::ModelSpec& spec) {
  return base::round_up(base::mul(2 * kv_layer_half(shape, spec), spec.n_layers), base::Buffer::align);
}

Engine::Scratch::Scratch(const model::ModelSpec& spec, const EngineShape& shape, uint32_t k_padded, base::Arena& arena)
    : workspace(spec, shape.batch_tokens, shape.max_logits(), arena),
      device({shape.batch_tokens, k_padded, shape.exact, spec.n_heads, spec.head_dim, shape.ctx_tokens}, arena),
      pages(shape.n_pages, arena),
      members(arena.take<Member>(shape.max_sessions)),
      sequences(arena.take<device::Sequence>(shape.max_sessions)),
      tokens(arena.take<int32_t>(shape.batch_tokens)),
      logit_rows(arena.take<uint32_t>(shape.batch_tokens)),
      candidates(arena.take<Candidate>(spec.n_vocab)),
      session_tokens(arena.take<int32_t>(uint64_t(shape.max_sessions) * shape.ctx_tokens)),
      session_pages(arena.take<uint32_t>(uint64_t(shape.max_sessions) * shape.pages_per_session())),
      session_logits(arena.take<float>(base::mul(shape.max_sessions, shape.logits_rows, spec.n_vocab))) {}

uint64_t Engine::scratch_bytes(const model::ModelSpec& spec, const EngineShape& shape, uint32_t k_padded) {
  base::Arena measure;
  Scratch(spec, shape, k_padded, measure);
  return measure.used() + shape.max_sessions * sizeof(Session);
}

Engine::Engine(const model::Model& model, const text::Tokenizer* tokenizer, const EngineShape& shape, const kernels::Kernels& kernels,
               base::Pool& pool, std::pmr::memory_resource* memory)
    : model_(model),
      tokenizer_(tokenizer),
      shape_(shape),
      pool_(pool),
      memory_(reserve<Scratch>(model.spec, shape, columns_max(model), memory)),
      kv_memory_(memory, base::to_size(base::mul(kv_page_bytes(shape, model.spec), shape.n_pages))),
      scratch_([&] {
        base::Arena arena(memory_.data());
        return Scratch(model.spec, shape, columns_max(model), arena);
      }()),
      kv_{kv_memory_.data(),
          kv_page_bytes(shape, model.spec),
          2 * kv_layer_half(shape, model.spec),
          kv_layer_half(shape, model.spec),
          shape.page_tokens,
          model.spec.n_kv_heads,
          model.spec.head_dim,
          shape.kv_kind},
      device_(kernels, pool, scratch_.device),
      forward_(model.spec, device_, kv_, scratch_.workspace, shape.ctx_tokens),
      sessions_(shape.max_sessions, memory) {}

Session* Engine::create_session() {
  for (size_t i = 0; i < sessions_.size(); ++i) {
    Session& session = sessions_[i];
    if (session.in_use) continue;
    std::destroy_at(&session);
    std::construct_at(&session);
    session.engine = this;
    session.in_use = true;
    session.tokens = scratch_.session_tokens + i * shape_.ctx_tokens;
    session.pages = scratch_.session_pages + i * shape_.pages_per_session();
    session.logits = scratch_.session_logits + i * shape_.logits_rows * model_.spec.n_vocab;
    return &session;
  }
  return nullptr;
}

void Engine::destroy_session(Session& session) {
  leave_batch(session);
  session.running = false;
  truncate(session, 0);
  session.in_use = false;
}

void Engine::truncate(Session& session, uint32_t n_tokens) {
  if (n_tokens >= session.n_tokens) return;
  session.n_tokens = n_tokens;
  session.n_computed = std::min(session.n_computed, n_tokens);
  const uint32_t kept = (session.n_computed + shape_.page_tokens - 1) / shape_.page_tokens;
  while (session.n_pages > kept) scratch_.pages.give_back(session.pages[--session.n_pages]);
  if (session.first_generated + session.n_generated <= n_tokens) return;
  session.first_generated = n_tokens;
  session.n_generated = session.tokens_read = session.n_logits = 0;
  session.text.start(tokenizer_, false, false);
}

void Engine::start(Session& session) {
  if (session.n_computed == session.n_tokens) --session.n_computed;  // logits come from computing a token: do the last one again
  session.running = true;
  session.cancelled.store(false, std::memory_order_relaxed);
  session.stop_reason = GPTQ_STOP_NONE;
  session.status = GPTQ_OK;
  session.first_generated = session.n_tokens;
  session.n_generated = session.tokens_read = session.n_logits = session.stop_index = 0;
  session.end_unseen = false;
  session.prefill_us = session.decode_us = session.first_token_us = 0;
  session.started = Clock::now();
}

Session* Engine::next_readable() {
  for (Session& session : sessions_)
    if (session.in_use && !session.offered && session.readable()) {
      session.offered = true;
      session.end_unseen = false;
      return &session;
    }
  return nullptr;
}

}  // namespace gptq::engine
