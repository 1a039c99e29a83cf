// SPDX-License-Identifier: Apache-2.0
// One step: batches of rows from all running sessions, cut into quanta (a layer, a slice of logits) that fit the budget.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/failure.h"
#include "engine/engine.h"

namespace gptq::engine {
namespace {

// Those that are alike side by side, in the order they came in.
template <class F>
void put_together(std::span<Session*> sessions, F alike) {
  for (auto first = sessions.begin(); first != sessions.end();) {
    auto behind = std::next(first);
    for (auto other = behind; other != sessions.end(); ++other)
      if (alike(**first, **other)) std::rotate(behind++, other, std::next(other));
    first = behind;
  }
}

}  // namespace

device::Batch Engine::batch() const {
  return {{scratch_.tokens, n_rows_}, {scratch_.sequences, n_members_}, {scratch_.logit_rows, n_logit_rows_ + n_pooled_rows_}, scratch_.rotation.angles(), {scratch_.adapted, n_adapted_}};
}

gptq_status Engine::step(uint32_t budget_us, bool one_batch, gptq_step_info& info) {
  const base::Pool::Active active(pool_);
  const Clock::time_point begin = Clock::now();
  for (Session& session : sessions_) session.offered = false;
  try {
    if (budget_us != GPTQ_BUDGET_POLL) work(begin, budget_us, one_batch, info);
  } catch (const base::Failure& failure) {
    end_all(failure.detail.status);
    throw;
  }
  report(info);
  info.used_us = static_cast<uint32_t>(us_since(begin));
  return std::any_of(sessions_.begin(), sessions_.end(), [&](const Session& s) { return rows_wanted(s) > 0; }) ? GPTQ_MORE : GPTQ_IDLE;
}

void Engine::work(Clock::time_point begin, uint32_t budget_us, bool one_batch, gptq_step_info& info) {
  const bool unlimited = budget_us == GPTQ_BUDGET_UNLIMITED;
  queued_us_ = 0;
  queued_ = 0;
  for (Stage* stage : stages_) stage->queued = 0;
  for (;;) {
    end_cancelled();
    const double used = us_since(begin), left = unlimited ? 1e18 : budget_us - std::max(used, queued_us_);
    if (awaits_) {
      if (!settle(unlimited ? UINT32_MAX : static_cast<uint32_t>(std::max(0.0, budget_us - used)), info)) return;
      if (one_batch && !n_members_) return;
      continue;
    }
    if (n_members_ && scratch_.members[0].session->in_background() && foreground_waits()) n_members_ = 0;  // its sessions do their part again
    if (!n_members_ && draft_ && !make_drafts(begin, budget_us, info)) {
      if (draft_->n_members_ || draft_->awaits_) return;  // the budget is over
      continue;
    }
    if (!n_members_ && !form_batch(budget_us)) return make_sure();
    if (info.quanta > 0 && next_quantum() > left) return;
    if (!unlimited || !run_whole()) run_quantum();
    if (unlimited && leads_on()) commit_ahead(info);
    ++info.quanta;
  }
}

void Engine::report(gptq_step_info& info) const {
  for (const Session& session : sessions_) {
    info.sessions_active += session.running;
    info.sessions_readable += session.in_use && session.readable();
  }
  const double next = n_members_ ? next_quantum() : draft_ && draft_->n_members_ ? draft_->next_quantum() : 0;
  info.next_quantum_us = static_cast<uint32_t>(next);
}

// Rows of this session that may be computed now.
uint32_t Engine::rows_wanted(const Session& session) const {
  if (!session.running) return 0;
  return session.wants_logits() ? std::min(session.n_pending(), shape_.logits_rows - session.n_logits) : session.n_pending();
}

bool Engine::foreground_waits() const {
  return std::any_of(sessions_.begin(), sessions_.end(), [&](const Session& s) { return !s.in_background() && rows_wanted(s) > 0; });
}

// Of a batch, to be within the budget.
uint32_t Engine::rows_at_most(uint32_t budget_us) const {
  uint32_t most = shape_.batch_tokens;
  for (const Stage* stage : stages_)
    if (budget_us != GPTQ_BUDGET_UNLIMITED) most = stage->costs.rows_within(budget_us, most);
  return most;
}

// First every session that waits for one token, then chunks of the longer inputs, as many rows as the budget can pay a layer of.
bool Engine::form_batch(uint32_t budget_us) {
  n_members_ = n_rows_ = n_logit_rows_ = n_pooled_rows_ = n_adapted_ = next_layer_ = next_logit_ = next_pooled_ = 0;
  batch_us_ = std::exchange(draft_us_, 0);
  drafting_ = false;
  const uint32_t most = rows_at_most(budget_us), n = static_cast<uint32_t>(sessions_.size());
  const bool foreground = foreground_waits();
  const auto rows_of = [&](const Session& session) { return foreground && session.in_background() ? 0 : rows_wanted(session); };
  uint32_t n_singles = 0;
  for (uint32_t i = 0; i < n && n_singles < most; ++i) {
    Session& session = sessions_[(turn_ + i) % n];
    share_prefix(session);
    if (rows_of(session) == 1) scratch_.singles[n_singles++] = &session;
  }
  // Those that begin on the same page side by side: attention reads what they share once. Then those with the same adapter, which is read
  // once too; who shares a page shares it.
  const std::span<Session*> singles(scratch_.singles, n_singles);
  put_together(singles, [](const Session& a, const Session& b) { return a.n_pages && b.n_pages && a.pages[0] == b.pages[0]; });
  put_together(singles, [](const Session& a, const Session& b) { return a.adapter == b.adapter && a.adapter_scale == b.adapter_scale; });
  const auto take = [&](Session& session, uint32_t rows) {
    if (!join(session, rows)) end(session, GPTQ_STOP_ERROR, GPTQ_E_KV_FULL);
  };
  for (uint32_t i = 0; i < n_singles; ++i) {
    uint32_t trust = 0;
    const uint32_t n_guesses = guess(*singles[i], most - n_rows_ - (n_singles - i), n_singles, trust);
    if (!n_guesses || !join(*singles[i], 1, n_guesses, trust)) take(*singles[i], 1);
  }
  for (uint32_t i = 0; i < n && n_rows_ < most; ++i) {
    Session& session = sessions_[(turn_ + i) % n];
    if (const uint32_t wanted = rows_of(session); wanted > 1) take(session, std::min(wanted, most - n_rows_));
  }
  std::copy_n(scratch_.pooled_rows, n_pooled_rows_, scratch_.logit_rows + n_logit_rows_);
  turn_ = (turn_ + 1) % n;
  return n_members_ > 0;
}

// Where another session has computed the tokens this one begins with, its whole pages serve both. The last token is computed in any case:
// logits come from that.
void Engine::share_prefix(Session& session) {
  const uint32_t page = shape_.page_tokens;
  if (!shares_prefixes_ || !session.running || session.wants_logits() || session.scores_input() || session.pools_all()) return;
  const uint32_t most = (session.n_tokens - 1) / page * page;
  for (const Session& other : sessions_) {
    if (!other.in_use || &other == &session || !other.adapted_by(session.adapter, session.adapter_scale)) continue;
    const uint32_t n = std::min(most, other.n_computed / page * page);
    if (n <= session.n_computed) continue;
    const auto common = std::mismatch(session.tokens, session.tokens + n, other.tokens).first - session.tokens;
    const uint32_t shared = static_cast<uint32_t>(common) / page * page;
    if (shared <= session.n_computed) continue;
    share_pages(session, other, shared / page);
    session.n_computed = shared;
  }
}

// Free pages that it takes for the session to write from n_computed up to n_tokens.
uint32_t Engine::pages_missing(const Session& session, uint32_t n_tokens) const {
  const uint32_t size = shape_.page_tokens, wanted = (n_tokens + size - 1) / size;
  uint32_t missing = wanted - std::min(wanted, session.n_pages);
  for (uint32_t i = session.n_computed / size; i < std::min(wanted, session.n_pages); ++i) missing += scratch_.pages.shared(session.pages[i]);
  return missing;
}

// The session can write from n_computed up to n_tokens then: pages are added, and those it shares with others become its own. Of the page
// that is partly computed it gets a copy.
bool Engine::reserve_pages(Session& session, uint32_t n_tokens) {
  KvPages& pages = scratch_.pages;
  const uint32_t size = shape_.page_tokens, first = session.n_computed / size, wanted = (n_tokens + size - 1) / size;
  if (pages_missing(session, n_tokens) > pages.n_free()) return false;
  for (uint32_t i = first; i < std::min(wanted, session.n_pages); ++i) {
    const uint32_t before = session.pages[i];
    if (!pages.shared(before)) continue;
    session.pages[i] = pages.take();
    for (Stage* stage : stages_)
      if (i * size < session.n_computed) stage->copy_page(before, session.pages[i]);
    pages.give_back(before);
  }
  while (session.n_pages < wanted) session.pages[session.n_pages++] = pages.take();
  return true;
}

// Puts guesses behind the session's tokens, as many as are worth it; the batch has `rows` rows without them.
uint32_t Engine::guess(Session& session, uint32_t most, uint32_t rows, uint32_t& trust) {
  const bool asked = session.flags & GPTQ_GEN_SPECULATE;
  if (!speculates_ || !(asked || (session.constraint && replays_exactly())) || session.wants_logits() || session.flags & GPTQ_GEN_PREFILL_ONLY) return 0;
  most = std::min({most, Lookup::most, shape_.ctx_tokens - session.n_tokens});
  if (session.max_tokens) most = std::min(most, session.max_tokens - session.n_generated - 1);
  int32_t* const behind = session.tokens + session.n_tokens;
  const auto worth = [&](uint32_t of) { return session.lookup.worth(trust, of, [&](uint32_t more) { return batch_cost(rows + more, rows); }); };
  if (session.constraint) {
    const Lookup before = session.lookup;
    trust = Lookup::by_constraint;
    if (const uint32_t n = foresee(session, {behind, worth(most)})) return n;
    session.lookup = before;
  }
  if (!asked) return 0;
  trust = Lookup::by_draft;
  if (const uint32_t n = drafted(session, {behind, most})) return n;
  const Copy copy = find_copy(session);
  trust = copy.trust;
  const uint32_t n = worth(std::min(most, static_cast<uint32_t>(copy.behind.size())));
  for (uint32_t i = 0; i < n; ++i) behind[i] = copy.behind[i];  // also out of guesses, where the text goes round
  return n;
}

// In the sequence, or in what the host foretold, where that is as long. As long as nothing can be a copy, what is generated begins as that does.
Engine::Copy Engine::find_copy(Session& session) const {
  const std::span<const int32_t> sequence(session.tokens, session.n_tokens), text = session.prediction, generated = session.generated();
  if (generated.size() < 2 && generated.size() < text.size() && std::equal(generated.begin(), generated.end(), text.begin()))
    return {text.subspan(generated.size()), 1};
  const Lookup::Place own = Lookup::find(sequence), foretold = Lookup::find(sequence, text, session.predicted);
  if (foretold.length && foretold.length >= own.length) {
    session.predicted = foretold.at;
    return {text.subspan(foretold.at), foretold.trust()};
  }
  if (!own.length) return {};
  return {{sequence.data() + own.at, std::min<size_t>(Lookup::most, shape_.ctx_tokens - own.at)}, own.trust()};
}

// Of so many rows that all have logits; where that was never seen, from what is known of `known` rows.
double Engine::batch_cost(uint32_t rows, uint32_t known) const {
  double layers = 0;
  for (const Stage* stage : stages_) layers += stage->n_quanta() * stage->costs.predict(rows, known);
  return layers + logit_costs_.predict(rows, known) + 1;
}

bool Engine::join(Session& session, uint32_t n_rows, uint32_t n_guesses, uint32_t trust) {
  if (!reserve_pages(session, session.n_computed + n_rows + n_guesses)) return false;
  const bool last = session.n_pending() == n_rows, samples = last && !(session.flags & GPTQ_GEN_PREFILL_ONLY);
  const uint32_t n_logits = session.wants_logits() || session.scores_input() ? n_rows : samples + n_guesses;
  const uint32_t n_pooled = session.pools_all() ? n_rows : session.pools() && last;
  scratch_.members[n_members_] = {.session = &session,
                                  .n_rows = n_rows,
                                  .first_logit = n_logit_rows_,
                                  .n_logits = n_logits,
                                  .first_pooled = n_pooled_rows_,
                                  .n_pooled = n_pooled,
                                  .n_guesses = n_guesses,
                                  .trust = trust,
                                  .sampler = {session.random, session.mu},
                                  .after = {},
                                  .constraint_state = session.constraint_state};
  n_rows += n_guesses;
  scratch_.sequences[n_members_] = {.first_row = n_rows_,
                                    .n_rows = n_rows,
                                    .first_position = session.n_computed,
                                    .pages = session.pages,
                                    .n_tokens = session.n_tokens + n_guesses,
                                    .state = session.n_computed ? session.states[session.state] : nullptr,
                                    .next_state = session.states[session.state ^ 1]};
  session.n_before = Session::no_state;  // the batch writes over it
  if (session.adapter) adapt_rows(session, n_rows);
  if (n_pooled) {
    float* const sum = scratch_.pooled + size_t{n_members_} * model_.spec.n_embd;
    session.n_pooled ? std::copy_n(session.pooled, model_.spec.n_embd, sum) : std::fill_n(sum, model_.spec.n_embd, 0.0f);
  }
  ++n_members_;
  std::copy_n(session.tokens + session.n_computed, n_rows, scratch_.tokens + n_rows_);
  n_rows_ += n_rows;
  for (uint32_t row = n_rows_ - n_logits; row < n_rows_; ++row) scratch_.logit_rows[n_logit_rows_++] = row;
  for (uint32_t row = n_rows_ - n_pooled; row < n_rows_; ++row) scratch_.pooled_rows[n_pooled_rows_++] = row;
  return true;
}

// The batch's last rows, which are to come, are this session's; with those before them if they have the same adapter.
void Engine::adapt_rows(const Session& session, uint32_t n_rows) {
  device::Adapted* last = n_adapted_ ? &scratch_.adapted[n_adapted_ - 1] : nullptr;
  const std::span<const kernels::LowRank> changes = session.adapter->changes();
  if (last && last->first_row + last->n_rows == n_rows_ && last->changes.data() == changes.data() && last->scale == session.adapter_scale)
    last->n_rows += n_rows;
  else
    scratch_.adapted[n_adapted_++] = {n_rows_, n_rows, changes, session.adapter_scale};
}

// Gives the rows of logits that were waited for to the sessions they belong to, as many as the time allows; whether those are all. A row with a
// constraint, or with top_p alone, takes as long as a layer: it is a quantum of its own in a step that did nothing before.
bool Engine::take_logits(Clock::time_point begin, uint32_t within_us, gptq_step_info& info) {
  for (; n_taken_ < logits_.n; ++n_taken_) {
    const double used = us_since(begin);
    if (info.quanta > 0 && used + row_us_ > within_us) return false;
    info.quanta += info.quanta == 0;
    take_row(n_taken_);
    row_us_ = 0.75 * row_us_ + 0.25 * (us_since(begin) - used);
  }
  return true;
}

void Engine::take_row(uint32_t row) {
  const uint32_t at = next_logit_ + row, n_vocab = model_.spec.n_vocab;
  const std::span<Member> members(scratch_.members, n_members_);
  const auto found = std::find_if(members.begin(), members.end(), [&](const Member& m) { return at < m.first_logit + m.n_logits; });
  if (found == members.end()) return;
  Member& member = *found;
  const Session& session = *member.session;
  const uint32_t i = at - member.first_logit;
  if (session.wants_logits()) {
    const uint32_t slot = (session.first_logits + session.n_logits + i) % shape_.logits_rows;
    std::memcpy(session.logits + size_t(slot) * n_vocab, logits_.all + size_t{row} * n_vocab, n_vocab * sizeof(float));
  }
  const uint32_t next = session.n_computed + i + 1;
  if (session.scores_input() && next < session.n_tokens) note_logprob(session, next, session.tokens[next], row);
  const bool samples = session.n_pending() == member.n_rows && !(session.flags & GPTQ_GEN_PREFILL_ONLY);
  if (samples && i + member.n_guesses + 1 >= member.n_logits && !member.settled) take_sampled(member, row);
}

// What follows the member's right guesses; another right guess where it is the next.
void Engine::take_sampled(Member& member, size_t row) {
  const Session& session = *member.session;
  const uint32_t n_vocab = model_.spec.n_vocab, n_tokens = session.n_tokens + member.n_right;
  Member::Sampler& sampler = member.sampler;
  int32_t token;
  if (logits_.tokens) {
    token = logits_.tokens[row];
  } else if (logits_.candidates) {
    token = sample_best({logits_.candidates + row * logits_.n_candidates, logits_.n_candidates}, n_vocab, session.sampling, sampler.random,
                        scratch_.candidates);
  } else {
    const auto* const constraint = session.constraint;
    const std::span<uint32_t> all(scratch_.mask, (n_vocab + 31) / 32);
    const auto pick = [&](std::span<const uint32_t> mask) {
      return sample({logits_.all + row * n_vocab, n_vocab}, {session.tokens, n_tokens}, session.sampling, sampler.random,
                    {scratch_.candidates, scratch_.changed_logits}, mask, &sampler.mu, unbroken(session, n_tokens));
    };
    const bool banned = session.phrases && banned_at(session, n_tokens);
    if (constraint && !find_mask(member)) {
      token = no_room;
    } else {
      if (banned) take_bans(member, all);
      token = pick(constraint || banned ? all : std::span<const uint32_t>());
      if (token >= 0 && session.phrases && !session.phrases->is_clean(token)) {
        take_bans(member, all);
        token = pick(all);
      }
    }
  }
  if (session.wants_logprobs() && token >= 0 && n_tokens < shape_.ctx_tokens) note_logprob(session, n_tokens, token, row);
  if (member.n_right < member.n_guesses && token == session.tokens[n_tokens]) {
    if (session.constraint) member.constraint_state = constrained(session, member.constraint_state, token, session.n_generated + member.n_right == 0);
    member.after[member.n_right++] = sampler;
  } else {
    member.sampled = token;
    member.settled = true;
  }
}

// Of softmax of the logits as they are. What a batch notes that is given up is noted again by the next.
void Engine::note_logprob(const Session& session, uint32_t position, int32_t token, size_t row) {
  const uint32_t n_vocab = model_.spec.n_vocab;
  const std::span<const float> logits(logits_.all + row * n_vocab, n_vocab);
  const double sum = log_sum_exp(logits);
  session.logprobs[position] = static_cast<float>(logits[static_cast<size_t>(token)] - sum);
  Candidate* best = session.best + size_t{position} * shape_.best_logprobs;
  if (!shape_.best_logprobs) return;
  for (const Candidate& c : best_of(logits, shape_.best_logprobs, scratch_.candidates)) *best++ = {static_cast<float>(c.logit - sum), c.token};
}

// How many of the last tokens have no character that ends repeats.
uint32_t Engine::unbroken(const Session& session, uint32_t n_tokens) const {
  if (!(session.sampling.dry_multiplier > 0) || !session.dry_breakers[0] || !tokenizer_) return UINT32_MAX;
  const char* const breakers = session.dry_breakers;
  const std::string_view set(breakers, static_cast<size_t>(std::find(breakers, breakers + dry_breakers_max, 0) - breakers));
  uint32_t n = 0;
  while (n < n_tokens && tokenizer_->token_bytes(session.tokens[n_tokens - 1 - n]).find_first_of(set) == std::string_view::npos) ++n;
  return n;
}

// Whether the text loses the space that its first token begins with.
bool Engine::loses_space(const Session& session) const {
  return tokenizer_->strips_leading_space() && !(session.flags & GPTQ_GEN_CONTINUE_TEXT);
}

void Engine::commit(gptq_step_info& info) {
  for (uint32_t m = 0; m < n_members_; ++m) {
    const Member& member = scratch_.members[m];
    Session& session = *member.session;
    if (session.wants_logits() && session.n_logits == 0) session.logits_position = session.n_computed;
    if (session.wants_logits()) session.n_logits += member.n_logits;
    if (member.n_pooled) {
      std::copy_n(scratch_.pooled + size_t{m} * model_.spec.n_embd, model_.spec.n_embd, session.pooled);
      session.n_pooled += member.n_pooled;
    }
    session.n_before = session.n_computed;
    session.state ^= 1;
    session.n_computed += member.n_rows;
    (session.n_generated ? session.decode_us : session.prefill_us) += static_cast<uint64_t>(batch_us_);
    if (session.n_generated == 0) info.tokens_prefilled += member.n_rows;
    if (session.n_pending()) continue;
    if (member.n_guesses) session.lookup.learn(member.trust, member.n_guesses, member.n_right);
    session.n_guessed += member.n_guesses;
    session.n_right += member.n_right;
    if (session.flags & GPTQ_GEN_PREFILL_ONLY) {
      const bool finite = std::all_of(session.pooled, session.pooled + (session.n_pooled ? model_.spec.n_embd : 0), [](float v) { return std::isfinite(v); });
      finite ? end(session, GPTQ_STOP_PREFILLED) : end(session, GPTQ_STOP_ERROR, GPTQ_E_NUMERIC);
      continue;
    }
    // Whether what follows the token counts too.
    const auto give = [&](const Member::Sampler& sampler, int32_t token) {
      const uint32_t before = session.n_tokens;
      session.random = sampler.random;
      session.mu = sampler.mu;
      accept(session, token);
      info.tokens_generated += session.stop_reason != GPTQ_STOP_CONTEXT;
      return session.running && session.n_tokens > before;
    };
    bool goes_on = true;
    for (uint32_t i = 0; i < member.n_right && goes_on; ++i) {
      goes_on = give(member.after[i], session.tokens[session.n_tokens]);
      session.n_computed += goes_on;
    }
    if (!goes_on) continue;
    if (member.sampled < 0)
      end(session, GPTQ_STOP_ERROR, member.sampled == none_allowed ? GPTQ_E_TEXT : member.sampled == no_room ? GPTQ_E_BUDGET_EXCEEDED : GPTQ_E_NUMERIC);
    else give(member.sampler, member.sampled);
  }
  n_members_ = 0;
}

void Engine::accept(Session& session, int32_t token) {
  if (session.n_tokens == shape_.ctx_tokens) return end(session, GPTQ_STOP_CONTEXT);
  if (session.constraint) session.constraint_state = constrained(session, session.constraint_state, token, session.n_generated == 0);
  if (!session.wants_logprobs()) session.logprobs[session.n_tokens] = std::numeric_limits<float>::quiet_NaN();
  session.tokens[session.n_tokens++] = token;
  if (session.n_generated++ == 0) session.first_token_us = static_cast<uint64_t>(us_since(session.started));
  if (session.constraint && session.constraint_state == text::constraint::Constraint::lost) session.constraint_state = led(session, session.n_generated);
  if (is_end_token(token) && !(session.flags & GPTQ_GEN_IGNORE_EOS)) return end(session, GPTQ_STOP_EOS);
  const int32_t stop = session.text.push(session.generated());
  if (stop == TextStream::has_phrase) return take_back(session, session.text.phrase_tokens());
  if (stop >= 0) {
    session.stop_index = static_cast<uint32_t>(stop);
    return end(session, GPTQ_STOP_STRING);
  }
  if (session.constraint && session.constraint->complete(session.constraint_state)) return end(session, GPTQ_STOP_CONSTRAINT);
  if (session.n_generated == session.max_tokens) end(session, GPTQ_STOP_LENGTH);
}

bool Engine::is_end_token(int32_t token) const {
  const auto& ends = model_.generation.end_tokens;
  return std::find(ends.begin(), ends.end(), token) != ends.end();
}

void Engine::end(Session& session, int32_t reason, gptq_status status) {
  stop_draft(session);
  session.running = false;
  session.stop_reason = reason;
  session.status = status;
  session.end_unseen = true;
  session.text.finish();
}

// What goes wrong with a device ends everybody's generation; what they had before stays.
void Engine::end_all(gptq_status status) {
  n_members_ = 0;
  await_nothing();
  ahead_ = false;
  for (Session& session : sessions_) {
    const bool taken_back = session.n_sure < session.n_computed;
    if (taken_back) rewind(session, session.n_sure);
    session.n_sure = UINT32_MAX;
    if (session.running || (taken_back && session.stop_reason == GPTQ_STOP_PREFILLED)) end(session, GPTQ_STOP_ERROR, status);
  }
}

void Engine::end_cancelled() {
  for (Session& session : sessions_)
    if (session.running && (session.cancelled.load(std::memory_order_relaxed) || (session.follows && session.follows->cancelled.load(std::memory_order_relaxed))))
      stop(session);
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
