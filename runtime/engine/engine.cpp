// SPDX-License-Identifier: Apache-2.0
// The engine's memory and its sessions; scheduler.cpp does the work.
#include "engine/engine.h"

#include <algorithm>
#include <limits>

#include "base/checked.h"

namespace gptq::engine {
namespace {

uint32_t rows_on_host(const EngineShape& shape) { return host_part(shape.placements).n_layers() ? shape.batch_tokens : 0; }
uint32_t logits_on_host(const EngineShape& shape) { return shape.placements.back().on_host() ? shape.max_logits() : 0; }

// Of a model with frequencies for far positions: every key turns otherwise once the sequence is long.
bool depends_on_length(const model::ModelSpec& spec) {
  return std::any_of(spec.ropes.begin(), spec.ropes.end(), [](const model::Rope& rope) { return !rope.long_inv_freq.empty(); });
}

uint64_t low_rank_bytes(const EngineShape& shape, uint32_t width) { return base::mul(shape.batch_tokens, width, sizeof(float)); }

template <class Scratch>
base::Buffer reserve(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights, std::pmr::memory_resource* memory) {
  base::Arena measure;
  Scratch(spec, shape, weights, measure);
  return {memory, base::to_size(measure.used())};
}

}  // namespace

Engine::Scratch::Scratch(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights, base::Arena& arena)
    : rotation(spec, shape.ctx_tokens, shape.batch_tokens, arena),
      workspace(spec, rows_on_host(shape), logits_on_host(shape), arena),
      routing(spec, rows_on_host(shape), arena),
      absorbed(spec, shape.activations == device::Activations::f32, arena),
      device(cpu_limits(spec, weights, rows_on_host(shape), shape.activations, shape.ctx_tokens), arena),
      pages(shape.n_pages, arena),
      members(arena.take<Member>(shape.max_sessions)),
      singles(arena.take<Session*>(shape.max_sessions)),
      sequences(arena.take<device::Sequence>(shape.max_sessions)),
      adapted(arena.take<device::Adapted>(shape.max_sessions)),
      tokens(arena.take<int32_t>(shape.batch_tokens)),
      logit_rows(arena.take<uint32_t>(shape.batch_tokens)),
      pooled_rows(arena.take<uint32_t>(shape.batch_tokens)),
      pooled(arena.take<float>(base::mul(shape.max_sessions, spec.n_embd))),
      candidates(arena.take<Candidate>(spec.n_vocab)),
      changed_logits(arena.take<float>(spec.n_vocab)),
      mask(arena.take<uint32_t>((spec.n_vocab + 31) / 32)),
      session_tokens(arena.take<int32_t>(uint64_t(shape.max_sessions) * shape.ctx_tokens)),
      session_pages(arena.take<uint32_t>(uint64_t(shape.max_sessions) * shape.pages_per_session())),
      session_logits(arena.take<float>(base::mul(shape.max_sessions, shape.logits_rows, spec.n_vocab))),
      session_logprobs(arena.take<float>(base::mul(shape.max_sessions, shape.ctx_tokens))),
      session_best(arena.take<Candidate>(base::mul(shape.max_sessions, shape.ctx_tokens, shape.best_logprobs))),
      session_pooled(arena.take<float>(base::mul(shape.max_sessions, spec.n_embd))) {}

uint64_t Engine::scratch_bytes(const model::ModelSpec& spec, const EngineShape& shape, const WeightShape& weights) {
  base::Arena measure;
  Scratch(spec, shape, weights, measure);
  return measure.used() + low_rank_bytes(shape, shape.low_rank_width) + shape.max_sessions * sizeof(Session) + shape.placements.size() * sizeof(Stage*);
}

Engine::Engine(const model::Model& model, const text::Tokenizer* tokenizer, const EngineShape& shape, const kernels::Kernels& kernels,
               base::Pool& pool, std::span<const device::Gpu* const> gpus, std::pmr::memory_resource* memory)
    : model_(model),
      tokenizer_(tokenizer),
      shape_(shape),
      pool_(pool),
      resource_(memory),
      memory_(base::brought(reserve<Scratch>(model.spec, shape, weight_shape(model), memory), pool)),
      kv_memory_(base::brought({memory, base::to_size(host_kv_bytes(shape, model.spec))}, pool)),
      scratch_([&] {
        base::Arena arena(memory_.data());
        return Scratch(model.spec, shape, weight_shape(model), arena);
      }()),
      state_bytes_(host_layout(shape, model.spec).state_bytes()),
      speculates_(state_bytes_ == 0 && !depends_on_length(model.spec)),
      shares_prefixes_(state_bytes_ == 0 && all_on_host(shape.placements) && !depends_on_length(model.spec)),
      on_gpu_(!all_on_host(shape.placements)),
      gpus_(memory),
      stages_(memory),
      sessions_(shape.max_sessions, memory) {
  stages_.reserve(shape.placements.size());
  scratch_.absorbed.fill(model, kernels, pool);
  for (const model::Placement& layers : shape.placements) {
    Stage* const before = stages_.empty() ? nullptr : stages_.back();
    if (layers.on_host()) {
      const HostStage::Memory host{scratch_.workspace, scratch_.routing, scratch_.absorbed, scratch_.device, kv_memory_.data()};
      stages_.push_back(&host_.emplace(model, layers, host_layout(shape, model.spec), host, kernels, pool, before));
    } else {
      stages_.push_back(&gpus_.emplace_front(shape_, model, layers, *gpus[layers.memory], scratch_.routing, before, memory));
    }
    if (before) before->go_on_with(*stages_.back());
  }
  widen_low_rank(shape.low_rank_width);
}

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
    std::byte* states = kv_memory_.data() + kv_memory_.size() - (i + 1) * 2 * state_bytes_;
    session.states[0] = states;
    session.states[1] = states + state_bytes_;
    session.logits = scratch_.session_logits + i * shape_.logits_rows * model_.spec.n_vocab;
    session.logprobs = scratch_.session_logprobs + i * shape_.ctx_tokens;
    session.best = scratch_.session_best + i * shape_.ctx_tokens * shape_.best_logprobs;
    session.pooled = scratch_.session_pooled + i * model_.spec.n_embd;
    return &session;
  }
  return nullptr;
}

bool Engine::has_slot() const {
  return std::any_of(sessions_.begin(), sessions_.end(), [](const Session& s) { return !s.in_use; });
}

bool Engine::replays_exactly() const { return !on_gpu_ && !depends_on_length(model_.spec); }

// Costs the tokens' and the page numbers' copy, and that of a recurrent state. Rows of logits that were not read stay with `from`.
Session* Engine::fork(const Session& from) {
  Session* const to = create_session();
  if (!to) return nullptr;
  std::copy_n(from.tokens, from.n_tokens, to->tokens);
  to->n_tokens = from.n_tokens;
  std::copy_n(from.logprobs, from.n_tokens, to->logprobs);
  std::copy_n(from.best, size_t{from.n_tokens} * shape_.best_logprobs, to->best);
  to->n_computed = from.n_computed;
  to->pooling = from.pooling;
  to->n_pooled = from.n_pooled;
  if (from.n_pooled) std::copy_n(from.pooled, model_.spec.n_embd, to->pooled);
  share_pages(*to, from, (to->n_computed + shape_.page_tokens - 1) / shape_.page_tokens);
  if (state_bytes_ && from.n_computed) std::copy_n(from.states[from.state], state_bytes_, to->states[from.state]);
  if (state_bytes_ && from.n_before != Session::no_state && from.n_before)
    std::copy_n(from.states[from.state ^ 1], state_bytes_, to->states[from.state ^ 1]);
  to->adapter = from.adapter;
  to->adapter_scale = from.adapter_scale;
  to->state = from.state;
  to->n_before = from.n_before;
  to->running = from.running;
  to->n_dropped = from.n_dropped;
  to->flags = from.flags;
  to->sampling = from.sampling;
  std::copy(from.sampling.bias.begin(), from.sampling.bias.end(), to->bias);
  to->sampling.bias = {to->bias, from.sampling.bias.size()};
  std::copy(std::begin(from.dry_breakers), std::end(from.dry_breakers), to->dry_breakers);
  to->random = from.random;
  to->mu = from.mu;
  to->lookup = from.lookup;
  to->n_guessed = from.n_guessed;
  to->n_right = from.n_right;
  to->constraint = from.constraint;
  to->constraint_state = from.constraint_state;
  to->phrases = from.phrases;
  std::copy_n(from.bans, from.n_bans, to->bans);
  to->n_bans = from.n_bans;
  to->max_tokens = from.max_tokens;
  to->first_generated = from.first_generated;
  to->n_generated = from.n_generated;
  to->stop_reason = from.stop_reason;
  to->status = from.status;
  to->stop_index = from.stop_index;
  to->end_unseen = from.end_unseen;
  to->prefill_us = from.prefill_us;
  to->decode_us = from.decode_us;
  to->first_token_us = from.first_token_us;
  to->started = from.started;
  to->tokens_read = from.tokens_read;
  to->text = from.text;
  to->marks = from.marks;
  to->own_template = from.own_template;
  to->marks_of_template = from.marks_of_template;
  return to;
}

// The first pages of `session` become those of `from`.
void Engine::share_pages(Session& session, const Session& from, uint32_t n_pages) {
  for (uint32_t i = 0; i < n_pages; ++i) {
    if (i < session.n_pages) scratch_.pages.give_back(session.pages[i]);
    session.pages[i] = scratch_.pages.share(from.pages[i]);
  }
  session.n_pages = std::max(session.n_pages, n_pages);
}

uint64_t Engine::kv_bytes(uint32_t n_tokens) const {
  uint64_t row = 0;
  for (const model::Placement& p : shape_.placements)
    row += p.on_host() ? host_layout(shape_, model_.spec).row_bytes() : gpu_layout(shape_, model_.spec, p).row_bytes();
  return n_tokens * row;
}

void Engine::read_kv(const Session& session, uint32_t n_tokens, const Stage::Pieces& use) const {
  const uint32_t size = shape_.page_tokens;
  for (uint32_t first = 0; first < n_tokens; first += size)
    for (Stage* stage : stages_) stage->read_kv(session.pages[first / size], std::min(size, n_tokens - first), use);
}

void Engine::write_kv(const Session& session, uint32_t n_tokens, const Stage::Pieces& fill) {
  const uint32_t size = shape_.page_tokens;
  for (uint32_t first = 0; first < n_tokens; first += size)
    for (Stage* stage : stages_) stage->write_kv(session.pages[first / size], std::min(size, n_tokens - first), fill);
}

void Engine::destroy_session(Session& session) {
  leave_batch(session);
  session.running = false;
  truncate(session, 0);
  session.in_use = false;
  stop_draft(session);
  if (draft_) draft_->truncate(mirror_of(session), 0);
}

void Engine::append(Session& session, std::span<const int32_t> tokens) {
  std::copy(tokens.begin(), tokens.end(), session.tokens + session.n_tokens);
  std::fill_n(session.logprobs + session.n_tokens, tokens.size(), std::numeric_limits<float>::quiet_NaN());
  session.n_tokens += static_cast<uint32_t>(tokens.size());
}

void Engine::truncate(Session& session, uint32_t n_tokens) {
  if (n_tokens >= session.n_tokens) return;
  session.n_tokens = n_tokens;
  rewind(session, std::min(session.n_computed, n_tokens));
  const uint32_t kept = (session.n_computed + shape_.page_tokens - 1) / shape_.page_tokens;
  while (session.n_pages > kept) scratch_.pages.give_back(session.pages[--session.n_pages]);
  if (session.first_generated + session.n_generated <= n_tokens) return;
  session.first_generated = n_tokens;
  session.n_generated = session.tokens_read = session.n_logits = 0;
  session.text.start(tokenizer_, false, false);
  session.marks = {};
}

// Keys and values are there for every position; of recurrent layers there is the state now and the one before the last batch. From any
// other place the sequence is computed anew.
void Engine::rewind(Session& session, uint32_t n_computed) {
  if (n_computed == session.n_computed) return;
  if (state_bytes_ && session.n_before == n_computed) session.state ^= 1;
  session.n_computed = state_bytes_ && session.n_before != n_computed ? 0 : n_computed;
  session.n_before = Session::no_state;
  session.n_pooled = 0;
}

void Engine::start(Session& session) {
  session.n_pooled = 0;
  if (session.pooling == Pooling::mean) rewind(session, 0);
  if (session.n_computed == session.n_tokens) rewind(session, session.n_tokens - 1);  // logits come from computing a token: do the last one again
  else if (session.scores_input() && session.n_computed > 0) rewind(session, session.n_computed - 1);  // what comes behind it wants its logits
  session.running = true;
  session.cancelled.store(false, std::memory_order_relaxed);
  session.stop_reason = GPTQ_STOP_NONE;
  session.status = GPTQ_OK;
  session.first_generated = session.n_tokens;
  session.n_generated = session.tokens_read = session.n_logits = session.stop_index = 0;
  session.n_guessed = session.n_right = session.n_bans = 0;
  session.lookup = {};
  session.predicted = 0;
  session.end_unseen = false;
  session.prefill_us = session.decode_us = session.first_token_us = 0;
  session.started = Clock::now();
  constrain(session);
}

void Engine::widen_low_rank(uint32_t width) {
  if (width <= low_rank_width_) return;
  low_rank_ = base::Buffer(resource_, base::to_size(low_rank_bytes(shape_, width)));
  low_rank_width_ = width;
  if (host_) host_->device().set_low_rank_room(reinterpret_cast<float*>(low_rank_.data()), width);
}

void Engine::set_adapter(Session& session, const model::Adapter* adapter, float scale) {
  if (adapter) make_room(*adapter);
  const bool same = session.adapted_by(adapter, scale);
  session.adapter = adapter;
  session.adapter_scale = scale;
  if (same) return;
  leave_batch(session);
  rewind(session, 0);
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
