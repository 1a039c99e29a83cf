// SPDX-License-Identifier: Apache-2.0
// The batch in progress on its way through the stages, a quantum at a time, and what they take.
#include <algorithm>
#include <utility>

#include "engine/engine.h"

namespace gptq::engine {

// The stage of the batch's next quantum.
size_t Engine::stage_at() const {
  size_t at = 0;
  while (at + 1 < stages_.size() && next_layer_ >= stages_[at]->layers().end_layer) ++at;
  return at;
}

double Engine::next_quantum() const {
  if (next_layer_ < model_.spec.n_layers) return stages_[stage_at()]->costs.estimate(n_rows_);
  if (arrived_) return row_us_;
  if (next_logit_ == n_logit_rows_) return 0;  // hidden states are as good as there
  return logit_costs_.estimate(std::min(shape_.max_logits(), n_logit_rows_ - next_logit_));
}

void Engine::run_quantum() {
  const Clock::time_point begin = Clock::now();
  if (queued_ == 0) queued_at_ = begin;
  const double expected = next_quantum();
  const bool layers = next_layer_ < model_.spec.n_layers;
  const size_t at = stage_at();
  Stage& stage = *stages_[at];
  if (layers) run_layers(at);
  else if (next_logit_ < n_logit_rows_) logits_ = stage.logits(next_logit_, std::min(shape_.max_logits(), n_logit_rows_ - next_logit_), candidates_wanted());
  else logits_ = stage.hidden(n_logit_rows_ + next_pooled_, hidden_at_once());
  awaits_ |= next_layer_ == model_.spec.n_layers && (logits_.n || logits_.n_hidden || n_logit_rows_ + n_pooled_rows_ == 0);
  const double us = us_since(begin);
  batch_us_ += us;
  if (stage.finish(0) && queued_ == 0) {
    if (layers) stage.costs.note(n_rows_, us);
    else if (logits_.n) logit_costs_.note(logits_.n, us);
  } else {
    queued_us_ += expected;
    ++queued_;
    stage.queued += layers;
  }
}

void Engine::run_layers(size_t at) {
  Stage& stage = *stages_[at];
  if (next_layer_ == stage.layers().first_layer) {
    if (at == 0) scratch_.rotation.turn_to(batch().sequences);
    stage.begin(batch());
  }
  next_layer_ = stage.compute(next_layer_);
  if (next_layer_ == stage.layers().end_layer && at + 1 < stages_.size()) awaits_ = !stage.leave();
}

// All of a stage at once, where it can that.
bool Engine::run_whole() {
  const size_t at = stage_at();
  Stage& stage = *stages_[at];
  const bool last = at + 1 == stages_.size();
  if (next_layer_ != stage.layers().first_layer || (last && n_logit_rows_ != n_rows_)) return false;
  const Clock::time_point begin = Clock::now();
  const uint32_t wanted = candidates_wanted();
  if (!stage.runs_whole(batch(), wanted)) return false;
  if (at == 0) scratch_.rotation.turn_to(batch().sequences);
  logits_ = stage.run(batch(), wanted);
  next_layer_ = stage.layers().end_layer;
  awaits_ = last || !stage.leave();
  batch_us_ += us_since(begin);
  if (queued_ == 0) queued_at_ = begin;
  stage.queued += stage.n_quanta();
  queued_ += stage.n_quanta() + last;
  return true;
}

// How many of the best logits are all that anybody in the batch needs; 0 = somebody needs every one.
uint32_t Engine::candidates_wanted() const {
  uint32_t most = 1;
  for (const Member& m : std::span(scratch_.members, n_members_)) {
    const bool all = m.session->wants_logits() || m.session->wants_logprobs() || m.session->constraint || m.session->phrases;
    const uint32_t wanted = all ? 0 : m.session->sampling.candidates(model_.spec.n_vocab);
    if (!wanted) return 0;
    most = std::max(most, wanted);
  }
  return most;
}

// Whether all that the batch has given to stages is done, after at most so long.
bool Engine::finish_stages(uint32_t wait_us) {
  const Clock::time_point begin = Clock::now();
  for (Stage* stage : stages_) {
    if (next_layer_ <= stage->layers().first_layer) break;
    const auto used = static_cast<uint32_t>(us_since(begin));
    if (!stage->finish(wait_us == UINT32_MAX ? wait_us : wait_us - std::min(wait_us, used))) return false;
  }
  return true;
}

// Whether all of the batch was given to GPUs, and nothing of it is waited for: a part of prefill.
bool Engine::leads_on() const {
  return stages_.size() > 1 && !host_ && n_members_ && next_layer_ == model_.spec.n_layers && n_logit_rows_ + n_pooled_rows_ == 0;
}

// It counts before it is done, so that the next one follows it from GPU to GPU. If it fails it is as if it had not been.
void Engine::commit_ahead(gptq_step_info& info) {
  for (uint32_t m = 0; m < n_members_; ++m) {
    Session& session = *scratch_.members[m].session;
    session.n_sure = std::min(session.n_sure, session.n_computed);
  }
  ahead_ = true;
  awaits_ = false;
  commit(info);
}

// What counted ahead is done.
void Engine::make_sure() {
  if (!ahead_) return;
  for (Stage* stage : stages_) stage->finish(UINT32_MAX);
  for (Session& session : sessions_) session.n_sure = UINT32_MAX;
  ahead_ = false;
}

// Whether what the batch waits for is done and taken, within so long; then goes on with it.
bool Engine::settle(uint32_t wait_us, gptq_step_info& info) {
  const Clock::time_point begin = Clock::now();
  if (!arrived_ && finish_stages(wait_us)) {
    note_costs();
    make_sure();
    arrived_ = true;
  }
  if (!arrived_ || !take_logits(begin, wait_us, info.quanta == 0)) {
    batch_us_ += us_since(begin);
    return false;
  }
  take_hidden();
  next_logit_ += logits_.n;
  next_pooled_ += logits_.n_hidden;
  await_nothing();
  batch_us_ += us_since(begin);
  const bool all = next_layer_ == model_.spec.n_layers && next_logit_ == n_logit_rows_ && next_pooled_ == n_pooled_rows_;
  if (n_members_ && all) commit(info);
  return true;
}

void Engine::await_nothing() {
  logits_ = {};
  n_taken_ = 0;
  awaits_ = arrived_ = false;
}

// Quanta of devices are told apart by their number alone.
void Engine::note_costs() {
  const double us = queued_ ? us_since(queued_at_) / queued_ : 0;
  const bool known = n_members_ && !ahead_;  // what overlaps tells nothing
  for (Stage* stage : stages_)
    if (std::exchange(stage->queued, 0) && known) stage->costs.note(n_rows_, us);
  if (queued_ && known && logits_.n) logit_costs_.note(logits_.n, us);
  queued_ = 0;
}

}  // namespace gptq::engine
