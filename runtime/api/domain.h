// SPDX-License-Identifier: Apache-2.0
// Who is inside an engine: one call at a time. Sessions that are destroyed meanwhile, by a callback or on another thread, wait for its end.
#pragma once
#include <atomic>
#include <thread>

#include "engine/session.h"

namespace gptq::api {

void destroy_now(engine::Session& session);

class Domain {
 public:
  // False where another call is inside.
  bool enter() {
    for (;;) {
      State now = State::free;
      if (state_.compare_exchange_strong(now, State::inside)) return true;
      if (now == State::inside) return false;
      std::this_thread::yield();
    }
  }
  // The same, once the other has left.
  void wait_and_enter() {
    while (!enter()) std::this_thread::yield();
  }
  void leave() {
    destroy_waiting();
    state_ = State::free;
    settle();
  }

  // Any thread, which holds a reference to the engine until it returns.
  void destroy(engine::Session& session) {
    session.next_dead = dead_;
    while (!dead_.compare_exchange_weak(session.next_dead, &session)) {
    }
    settle();
  }

 private:
  enum class State { free, inside, settling };

  // Destroys what waits for it, unless somebody is inside, who will do it then.
  void settle() {
    for (State now = State::free; dead_ && state_.compare_exchange_strong(now, State::settling); now = State::free) {
      destroy_waiting();
      state_ = State::free;
    }
  }
  void destroy_waiting() {
    for (engine::Session* session = dead_.exchange(nullptr); session;) {
      engine::Session* const next = session->next_dead;
      destroy_now(*session);
      session = next;
    }
  }

  std::atomic<State> state_{State::free};
  std::atomic<engine::Session*> dead_{nullptr};  // a list
};

}  // namespace gptq::api
