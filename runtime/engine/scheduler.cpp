// SPDX-License-Identifier: Apache-2.0
// One step: batches of rows from all running sessions, cut into quanta (a layer, a slice of logits) that fit the budget.
#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/engine.h"

namespace gptq::engine {
namespace {

constexpr uint32_t rows_at_first = 16;  // with a budget, before any cost is known

double us_since(Clock::time_point begin) { return std::chrono::duration<double, std::micro>(Clock::now() - begin).count(); }
uint32_t bucket(uint32_t rows) { return static_cast<uint32_t>(std::bit_width(rows)) - 1; }

}  // namespace

void Engine::Costs::note(uint32_t rows, double cost) {
  double& us_of = us[bucket(rows)];
  us_of = us_of == 0 ? cost : 0.75 * us_of + 0.25 * cost;
}

// From the nearest size that is known, as if cost grew with the rows.
double Engine::Costs::estimate(uint32_t rows) const {
  const uint32_t at = bucket(rows);
  if (us[at] > 0) return us[at];
  for (uint32_t below = at; below-- > 0;)
    if (us[below] > 0) return us[below] * (1u << (at - below));
  for (uint32_t above = at + 1; above < 32; ++above)
    if (us[above] > 0) return us[above];
  return 0;
}

uint32_t Engine::Costs::rows_within(double budget_us, uint32_t most) const {
  if (estimate(1) == 0) return std::min(most, rows_at_first);
  uint32_t rows = 1;
  while (rows * 2 <= most && estimate(rows * 2) <= budget_us) rows *= 2;
  return rows * 2 > most && estimate(most) <= budget_us ? most : rows;
}

Batch Engine::batch() const {
  return {{scratch_.tokens, n_rows_}, {scratch_.sequences, n_members_}, {scratch_.logit_rows, n_logit_rows_}};
}

gptq_status Engine::step(uint32_t budget_us, bool one_batch, gptq_step_info& info) {
  const base::Pool::Active active(pool_);
  const Clock::time_point begin = Clock::now();
  for (Session& session : sessions_) session.offered = false;
  for (double used = 0; budget_us != GPTQ_BUDGET_POLL; used = us_since(begin)) {
    end_cancelled();
    if (!n_members_ && !form_batch(budget_us)) break;
    const bool fits = budget_us == GPTQ_BUDGET_UNLIMITED || info.quanta == 0 || next_quantum() <= budget_us - used;
    if (!fits) break;
    run_quantum(info);
    if (one_batch && !n_members_) break;
  }
  report(info);
  info.used_us = static_cast<uint32_t>(us_since(begin));
  return std::any_of(sessions_.begin(), sessions_.end(), [&](const Session& s) { return rows_wanted(s) > 0; }) ? GPTQ_MORE : GPTQ_IDLE;
}

void Engine::report(gptq_step_info& info) const {
  for (const Session& session : sessions_) {
    info.sessions_active += session.running;
    info.sessions_readable += session.in_use && session.readable();
  }
  info.next_quantum_us = n_members_ ? static_cast<uint32_t>(next_quantum()) : 0;
}

// Rows of this session that may be computed now.
uint32_t Engine::rows_wanted(const Session& session) const {
  if (!session.running) return 0;
  return session.wants_logits() ? std::min(session.n_pending(), shape_.logits_rows - session.n_logits) : session.n_pending();
}

// First every session that waits for one token, then chunks of the longer inputs, as many rows as the budget can pay a layer of.
bool Engine::form_batch(uint32_t budget_us) {
  n_members_ = n_rows_ = n_logit_rows_ = next_layer_ = next_logit_ = 0;
  batch_us_ = 0;
  const uint32_t most = budget_us == GPTQ_BUDGET_UNLIMITED ? shape_.batch_tokens : layer_costs_.rows_within(budget_us, shape_.batch_tokens);
  const uint32_t n = static_cast<uint32_t>(sessions_.size());
  for (const bool single : {true, false})
    for (uint32_t i = 0; i < n && n_rows_ < most; ++i) {
      Session& session = sessions_[(turn_ + i) % n];
      const uint32_t wanted = rows_wanted(session);
      if (wanted && (wanted == 1) == single && !join(session, std::min(wanted, most - n_rows_)))
        end(session, GPTQ_STOP_ERROR, GPTQ_E_KV_FULL);
    }
  turn_ = (turn_ + 1) % n;
  return n_members_ > 0;
}

bool Engine::reserve_pages(Session& session, uint32_t n_tokens) {
  const uint32_t wanted = (n_tokens + shape_.page_tokens - 1) / shape_.page_tokens;
  if (wanted > session.n_pages && wanted - session.n_pages > scratch_.pages.n_free()) return false;
  while (session.n_pages < wanted) session.pages[session.n_pages++] = scratch_.pages.take();
  return true;
}

bool Engine::join(Session& session, uint32_t n_rows) {
  if (!reserve_pages(session, session.n_computed + n_rows)) return false;
  const bool last = session.n_pending() == n_rows, samples = last && !(session.flags & GPTQ_GEN_PREFILL_ONLY);
  const uint32_t n_logits = session.wants_logits() ? n_rows : samples;
  scratch_.members[n_members_] = {&session, n_rows, n_logit_rows_, n_logits, -1, session.random};
  scratch_.sequences[n_members_] = {n_rows_, n_rows, session.n_computed, session.pages};
  ++n_members_;
  std::copy_n(session.tokens + session.n_computed, n_rows, scratch_.tokens + n_rows_);
  n_rows_ += n_rows;
  for (uint32_t row = n_rows_ - n_logits; row < n_rows_; ++row) scratch_.logit_rows[n_logit_rows_++] = row;
  return true;
}

double Engine::next_quantum() const {
  if (next_layer_ < model_.spec.n_layers || n_logit_rows_ == 0) return layer_costs_.estimate(n_rows_);
  return logit_costs_.estimate(std::min(shape_.max_logits(), n_logit_rows_ - next_logit_));
}

void Engine::run_quantum(gptq_step_info& info) {
  const Clock::time_point begin = Clock::now();
  if (next_layer_ < model_.spec.n_layers) {
    if (next_layer_ == 0) forward_.begin(batch(), model_.embed);
    forward_.layer(batch(), model_.layers[next_layer_], next_layer_);
    ++next_layer_;
    layer_costs_.note(n_rows_, us_since(begin));
  } else if (next_logit_ < n_logit_rows_) {
    const uint32_t count = std::min(shape_.max_logits(), n_logit_rows_ - next_logit_);
    take_logits(next_logit_, count, forward_.logits(batch(), next_logit_, count, model_.final_norm, model_.head));
    next_logit_ += count;
    logit_costs_.note(count, us_since(begin));
  }
  batch_us_ += us_since(begin);
  ++info.quanta;
  if (next_layer_ == model_.spec.n_layers && next_logit_ == n_logit_rows_) commit(info);
}

// Gives rows first .. first + count - 1 of the batch's logits to the sessions they belong to.
void Engine::take_logits(uint32_t first, uint32_t count, const float* logits) {
  const uint32_t n_vocab = model_.spec.n_vocab;
  for (uint32_t m = 0; m < n_members_; ++m) {
    Member& member = scratch_.members[m];
    const Session& session = *member.session;
    const uint32_t begin = std::max(first, member.first_logit), end = std::min(first + count, member.first_logit + member.n_logits);
    if (begin >= end) continue;
    for (uint32_t i = begin; session.wants_logits() && i < end; ++i) {
      const uint32_t slot = (session.first_logits + session.n_logits + i - member.first_logit) % shape_.logits_rows;
      std::memcpy(session.logits + size_t(slot) * n_vocab, logits + size_t(i - first) * n_vocab, n_vocab * sizeof(float));
    }
    const bool samples = session.n_pending() == member.n_rows && !(session.flags & GPTQ_GEN_PREFILL_ONLY);
    if (samples && end == member.first_logit + member.n_logits)
      member.sampled = sample({logits + size_t(end - 1 - first) * n_vocab, n_vocab}, {session.tokens, session.n_tokens}, session.sampling,
                              member.random, scratch_.candidates);
  }
}

void Engine::commit(gptq_step_info& info) {
  for (uint32_t m = 0; m < n_members_; ++m) {
    const Member& member = scratch_.members[m];
    Session& session = *member.session;
    if (session.wants_logits() && session.n_logits == 0) session.logits_position = session.n_computed;
    if (session.wants_logits()) session.n_logits += member.n_logits;
    session.n_computed += member.n_rows;
    (session.n_generated ? session.decode_us : session.prefill_us) += static_cast<uint64_t>(batch_us_);
    if (session.n_generated == 0) info.tokens_prefilled += member.n_rows;
    if (session.n_pending()) continue;
    if (session.flags & GPTQ_GEN_PREFILL_ONLY) {
      end(session, GPTQ_STOP_PREFILLED);
    } else if (member.sampled < 0) {
      end(session, GPTQ_STOP_ERROR, GPTQ_E_NUMERIC);
    } else {
      session.random = member.random;
      accept(session, member.sampled);
      info.tokens_generated += session.stop_reason != GPTQ_STOP_CONTEXT;
    }
  }
  n_members_ = 0;
}

void Engine::accept(Session& session, int32_t token) {
  if (session.n_tokens == shape_.ctx_tokens) return end(session, GPTQ_STOP_CONTEXT);
  session.tokens[session.n_tokens++] = token;
  if (session.n_generated++ == 0) session.first_token_us = static_cast<uint64_t>(us_since(session.started));
  if (is_end_token(token) && !(session.flags & GPTQ_GEN_IGNORE_EOS)) return end(session, GPTQ_STOP_EOS);
  if (const int32_t stop = session.text.push(token); stop >= 0) {
    session.stop_index = static_cast<uint32_t>(stop);
    return end(session, GPTQ_STOP_STRING);
  }
  if (session.n_generated == session.max_tokens) end(session, GPTQ_STOP_LENGTH);
}

bool Engine::is_end_token(int32_t token) const {
  const auto& ends = model_.generation.end_tokens;
  return std::find(ends.begin(), ends.end(), token) != ends.end();
}

void Engine::end(Session& session, int32_t reason, gptq_status status) {
  session.running = false;
  session.stop_reason = reason;
  session.status = status;
  session.end_unseen = true;
  session.text.finish();
}

void Engine::end_cancelled() {
  for (Session& session : sessions_)
    if (session.running && session.cancelled.load(std::memory_order_relaxed)) stop(session);
}

void Engine::stop(Session& session) {
  leave_batch(session);
  end(session, GPTQ_STOP_CANCELLED);
}

// A batch with this session in it is given up; the others do their part again.
void Engine::leave_batch(const Session& session) {
  for (uint32_t m = 0; m < n_members_; ++m)
    if (scratch_.members[m].session == &session) {
      n_members_ = 0;
      return;
    }
}

}  // namespace gptq::engine
