// SPDX-License-Identifier: Apache-2.0
// Who is inside an engine: one call at a time. Sessions that are destroyed meanwhile, by a callback or on another thread, wait for its end.
#pragma once
#include <atomic>

#include "engine/session.h"

namespace gptq::api {

void destroy_now(engine::Session& session);

class Domain {
 public:
  // False where another call is inside.
  bool enter();
  // The same, once the other has left.
  void wait_and_enter();
  void leave();
  // Any thread, which holds a reference to the engine until it returns.
  void destroy(engine::Session& session);

 private:
  enum class State { free, inside, settling };
  void settle();
  void destroy_waiting();

  std::atomic<State> state_{State::free};
  std::atomic<engine::Session*> dead_{nullptr};  // a list
};

}  // namespace gptq::api
