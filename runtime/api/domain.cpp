// SPDX-License-Identifier: Apache-2.0
#include "api/domain.h"

#include <thread>

#include "api/handles.h"

namespace gptq::api {

bool Domain::enter() {
  for (;;) {
    State now = State::free;
    if (state_.compare_exchange_strong(now, State::inside)) return true;
    if (now == State::inside) return false;
    std::this_thread::yield();
  }
}

void Domain::wait_and_enter() {
  while (!enter()) std::this_thread::yield();
}

void Domain::leave() {
  destroy_waiting();
  state_ = State::free;
  settle();
}

void Domain::destroy(engine::Session& session) {
  session.next_dead = dead_;
  while (!dead_.compare_exchange_weak(session.next_dead, &session)) {
  }
  settle();
}

// Destroys what waits for it, unless somebody is inside, who will do it then.
void Domain::settle() {
  for (State now = State::free; dead_ && state_.compare_exchange_strong(now, State::settling); now = State::free) {
    destroy_waiting();
    state_ = State::free;
  }
}

void Domain::destroy_waiting() {
  for (engine::Session* session = dead_.exchange(nullptr); session;) {
    engine::Session* const next = session->next_dead;
    destroy_now(*session);
    session = next;
  }
}

Inside::Inside(gptq_engine* e) : engine_(e && e->domain.enter() ? retain(e) : nullptr), in_(engine_ || !e) {}

Inside::~Inside() {
  leave();
  gptq_engine_destroy(engine_);
}

void Inside::require() const {
  api::require(in_, "the engine is in use, by another thread or by the call that this callback is of", GPTQ_E_INVALID_STATE);
}

void Inside::leave() {
  if (engine_ && in_) engine_->domain.leave();
  in_ = false;
}

void step_batch(gptq_engine& e) {
  const Inside inside(&e);
  inside.require();
  gptq_step_info info{};
  e.engine->step(GPTQ_BUDGET_UNLIMITED, true, info);
}

}  // namespace gptq::api
