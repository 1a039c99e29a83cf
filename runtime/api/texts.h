// SPDX-License-Identifier: Apache-2.0
// Texts that are computed, not continued: one a session, in as many free slots of an engine as there are.
#pragma once
#include <memory>

#include "api/handles.h"
#include "base/call.h"

namespace gptq::api {

using OwnedSession = std::unique_ptr<gptq_session, void (*)(gptq_session*)>;

inline void start_prefill(gptq_session* s, uint32_t flags, int32_t pooling = GPTQ_POOL_NONE) {
  gptq_generate_params params{};
  params.struct_size = sizeof params;
  params.flags = GPTQ_GEN_PREFILL_ONLY | flags;
  params.pooling = pooling;
  base::call([&](gptq_error* err) { return gptq_session_start(s, &params, err); });
}

// begin(i) gives a session that has started on text i, take(i, session) gets it when it has ended. Steps the engine.
template <class Begin, class Take>
void compute_texts(gptq_engine& e, size_t n, Begin begin, Take take) {
  struct Text {
    OwnedSession session;
    size_t number;
  };
  std::pmr::vector<Text> running(&e.model.runtime.memory);
  for (size_t next = 0; next < n || !running.empty();) {
    for (; next < n && e.engine->has_slot(); ++next) running.push_back({begin(next), next});
    require(!running.empty(), "no session slot is free; raise max_sessions or destroy one", GPTQ_E_INVALID_STATE);
    step_batch(e);
    std::erase_if(running, [&](const Text& text) {
      const engine::Session& session = session_of(text.session.get());
      if (!session.running) take(text.number, session);
      return !session.running;
    });
  }
}

}  // namespace gptq::api
