// SPDX-License-Identifier: Apache-2.0
// Guesses of a second, smaller model. Every session has a mirror in that model's engine, which before a batch is brought to the same tokens, and
// generates what is guessed then: all that are to have guesses together, in quanta. What a mirror holds is told by its tokens alone, so
// that nothing has to be kept up when a session's tokens change.
#include <algorithm>
#include <functional>

#include "base/failure.h"
#include "engine/engine.h"

namespace gptq::engine {

void Engine::set_draft(Engine* draft, uint32_t n_common) {
  draft_ = draft;
  n_common_ = n_common;
  drafting_ = false;
  draft_us_ = 0;
  while (draft && draft->create_session()) {
  }
}

// How many of the session's tokens its mirror begins with. What the draft model has no token for is its first one there.
uint32_t Engine::mirrored(const Session& session) const {
  const Session& mirror = mirror_of(session);
  const uint32_t most = std::min(session.n_tokens, mirror.n_tokens);
  const auto same = [&](int32_t ours, int32_t drafts) { return drafts == (static_cast<uint32_t>(ours) < n_common_ ? ours : 0); };
  return static_cast<uint32_t>(std::mismatch(session.tokens, session.tokens + most, mirror.tokens, same).first - session.tokens);
}

// Not before the first token: nobody waits longer for that.
bool Engine::may_draft(const Session& session) const {
  const bool asked = session.flags & GPTQ_GEN_SPECULATE && !(session.flags & GPTQ_GEN_PREFILL_ONLY) && !session.wants_logits();
  return asked && session.running && session.n_generated && session.n_pending() == 1 && session.n_tokens < draft_->shape_.ctx_tokens;
}

// Works on what the next batch is to have of guesses; whether all is there.
bool Engine::make_drafts(Clock::time_point begin, uint32_t budget_us, gptq_step_info& info) {
  if (!drafting_) plan_drafts(budget_us);
  drafting_ = true;
  const bool foreground = foreground_waits();
  bool any = false;
  for (const Session& session : sessions_) {
    if (session.in_background() && foreground) stop_draft(session);
    any |= mirror_of(session).running;
  }
  if (!any) return true;
  const Clock::time_point began = Clock::now();
  gptq_step_info own{};
  own.quanta = info.quanta;
  try {
    draft_->work(begin, budget_us, true, own);
  } catch (const base::Failure& failure) {  // a device's: it makes no guesses any more
    draft_->end_all(failure.detail.status);
    draft_ = nullptr;
    return true;
  }
  info.quanta = own.quanta;
  draft_us_ += us_since(began);
  if (draft_->n_members_ || draft_->awaits_) return false;  // of a batch that was given up a device may still have work
  any = false;
  for (const Session& session : sessions_) {
    if (mirror_of(session).flags & GPTQ_GEN_PREFILL_ONLY) stop_draft(session);  // a chunk a batch
    any |= mirror_of(session).running;
  }
  note_failed_drafts();
  return !any;
}

// Who gets guesses of the draft model in the next batch, and how many; what they are made from is put into the mirrors. One that has more to catch up
// with than fits a batch does a part of it beside each of ours: nobody waits for it.
void Engine::plan_drafts(uint32_t budget_us) {
  const bool foreground = foreground_waits();
  const auto wanted = [&](const Session& s) { return foreground && s.in_background() ? 0 : rows_wanted(s); };
  uint32_t n_singles = 0, n_drafting = 0;
  for (const Session& session : sessions_) {
    n_singles += wanted(session) == 1;
    n_drafting += wanted(session) == 1 && may_draft(session);
  }
  if (!n_drafting) return;
  const uint32_t rows = rows_at_most(budget_us), most = rows > n_singles ? (rows - n_singles) / n_drafting : 0;
  const double each = draft_->batch_cost(n_drafting, n_drafting);
  const auto of = [&](uint32_t n) { return batch_cost(n_singles + n * n_drafting, n_singles) + n * each; };
  const Lookup::Cost cost(std::ref(of));  // which fits std::function without memory
  for (Session& session : sessions_) {
    if (wanted(session) != 1 || !may_draft(session)) continue;
    Session& mirror = mirror_of(session);
    const uint32_t same = mirrored(session);
    if (same == session.n_tokens && mirror.n_tokens > same) continue;  // they are there
    draft_->truncate(mirror, same);
    uint32_t left = std::min({most, Lookup::most, shape_.ctx_tokens - session.n_tokens, draft_->shape_.ctx_tokens - session.n_tokens});
    if (session.max_tokens) left = std::min(left, session.max_tokens - session.n_generated - 1);
    const uint32_t within = draft_->rows_at_most(budget_us), missing = session.n_tokens - mirror.n_computed;
    const bool near = missing <= within;
    if (!near && !session.lookup.tries(Lookup::by_draft, left, cost)) {
      session.lookup.worth(Lookup::by_draft, left, cost);  // which counts the times
      continue;
    }
    const uint32_t to_come = session.max_tokens ? session.max_tokens - session.n_generated : shape_.ctx_tokens - session.n_tokens;
    if (!near && missing * draft_->prefill_cost(within) / within > to_come * cost(0) / 2) continue;  // it could not be made up for
    const uint32_t n = near ? draft_worth(session, left, cost) : 0;
    if (near && !n) continue;
    if (draft_fits(session, n)) start_draft(session, n, near);
    else draft_->truncate(mirror, 0);  // others may have the pages
  }
}

double Engine::prefill_cost(uint32_t rows) const {
  double cost = 0;
  for (const Stage* stage : stages_) cost += stage->n_quanta() * stage->costs.estimate(rows);
  return cost;
}

// None where what costs nothing to find is as good.
uint32_t Engine::draft_worth(Session& session, uint32_t most, const Lookup::Cost& cost) const {
  const double each = draft_->batch_cost(1, 1);
  const Lookup::Cost found_cost = [&cost, each](uint32_t n) { return cost(n) - n * each; };
  if (session.constraint) {
    int32_t foreseen[Lookup::most];
    if (const uint32_t n = session.lookup.best(Lookup::by_constraint, most, found_cost).n; n && foresee(session, {foreseen, n})) return 0;
  }
  const Copy copy = find_copy(session);
  const Lookup::Worth found = session.lookup.best(copy.trust, std::min(most, static_cast<uint32_t>(copy.behind.size())), found_cost);
  if (found.n && found.gain >= session.lookup.best(Lookup::by_draft, most, cost).gain) return 0;
  return session.lookup.worth(Lookup::by_draft, most, cost);
}

bool Engine::draft_fits(const Session& session, uint32_t n) const {
  return draft_->pages_missing(mirror_of(session), session.n_tokens + n) <= draft_->pages().n_free();
}

// n guesses, sampled as the session would; or, where it is not near, its tokens alone.
void Engine::start_draft(const Session& session, uint32_t n, bool near) {
  Session& mirror = mirror_of(session);
  for (uint32_t i = mirror.n_tokens; i < session.n_tokens; ++i) {
    const int32_t token = static_cast<uint32_t>(session.tokens[i]) < n_common_ ? session.tokens[i] : 0;
    draft_->append(mirror, {&token, 1});
  }
  mirror.follows = &session;
  mirror.flags = session.flags & (GPTQ_GEN_IGNORE_EOS | GPTQ_GEN_CONTINUE_TEXT | GPTQ_GEN_BACKGROUND);
  mirror.running = true;
  mirror.stop_reason = GPTQ_STOP_NONE;
  mirror.status = GPTQ_OK;
  mirror.first_generated = session.first_generated;
  mirror.n_generated = session.n_generated;
  mirror.text.start(nullptr, false, false);
  if (!near) {
    mirror.flags |= GPTQ_GEN_PREFILL_ONLY;
    mirror.first_generated = mirror.n_tokens;
    mirror.n_generated = 0;
  }
  mirror.max_tokens = mirror.n_generated + n;
  mirror.sampling = session.sampling;
  const auto known = [&](const LogitBias& bias) { return static_cast<uint32_t>(bias.token) < draft_->model_.spec.n_vocab; };
  const auto end = std::copy_if(session.sampling.bias.begin(), session.sampling.bias.end(), mirror.bias, known);
  mirror.sampling.bias = {mirror.bias, static_cast<size_t>(end - mirror.bias)};
  std::copy(std::begin(session.dry_breakers), std::end(session.dry_breakers), mirror.dry_breakers);
  mirror.random = session.random;
  mirror.mu = session.mu;
  const bool same_words = draft_->model_.spec.n_vocab == model_.spec.n_vocab && draft_->tokenizer_;  // masks are of our tokens
  mirror.constraint = same_words ? session.constraint : nullptr;
  mirror.constraint_state = session.constraint_state;
  draft_->share_prefix(mirror);
  if (mirror.n_computed == mirror.n_tokens) draft_->rewind(mirror, mirror.n_tokens - 1);
}

// A model that cannot say anything is as good as one that is wrong.
void Engine::note_failed_drafts() {
  for (Session& session : sessions_) {
    Session& mirror = mirror_of(session);
    if (mirror.stop_reason != GPTQ_STOP_ERROR) continue;
    mirror.stop_reason = GPTQ_STOP_NONE;
    session.lookup.learn(Lookup::by_draft, 1, 0);
    draft_->truncate(mirror, 0);
  }
}

// What the mirror has behind the session's tokens.
uint32_t Engine::drafted(const Session& session, std::span<int32_t> out) const {
  if (!draft_) return 0;
  const Session& mirror = mirror_of(session);
  if (mirror.n_tokens <= session.n_tokens || mirrored(session) < session.n_tokens) return 0;
  uint32_t n = 0;
  for (const uint32_t most = mirror.n_tokens - session.n_tokens; n < std::min<size_t>(most, out.size()); ++n) {
    out[n] = mirror.tokens[session.n_tokens + n];
    if (static_cast<uint32_t>(out[n]) >= n_common_) break;
  }
  return n;
}

void Engine::stop_draft(const Session& session) {
  if (draft_ && mirror_of(session).running) draft_->stop(mirror_of(session));
}

}  // namespace gptq::engine
