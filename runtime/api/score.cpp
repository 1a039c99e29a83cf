// SPDX-License-Identifier: Apache-2.0
// C API: log-probabilities, and how likely texts are.
#include <cmath>
#include <memory>

#include "api/guard.h"
#include "api/handles.h"
#include "base/call.h"

using namespace gptq;
using namespace gptq::api;

namespace {

using Owned = std::unique_ptr<gptq_session, void (*)(gptq_session*)>;

// A fork that computes a text's tokens.
struct Scored {
  Owned session{nullptr, gptq_session_destroy};
  size_t text = 0;
};

void start(gptq_session* s, uint32_t flags) {
  gptq_generate_params params{};
  params.struct_size = sizeof params;
  params.flags = flags;
  base::call([&](gptq_error* err) { return gptq_session_start(s, &params, err); });
}

void check_end(const engine::Session& s) {
  if (s.status != GPTQ_OK) base::fail(s.status, "a text could not be computed: status ", s.status);
}

Owned fork_with(gptq_session* s, const gptq_string& text) {
  gptq_session* fork = nullptr;
  base::call([&](gptq_error* err) { return gptq_session_fork(s, &fork, err); });
  Owned owned(fork, gptq_session_destroy);
  base::call([&](gptq_error* err) { return gptq_session_append_text(fork, text.ptr, text.size, 0, nullptr, err); });
  start(fork, GPTQ_GEN_PREFILL_ONLY | GPTQ_GEN_LOGPROBS);
  return owned;
}

void score(gptq_session* s, std::span<const gptq_string> texts, double* logprobs, uint32_t* n_tokens) {
  const engine::Session& stem = session_of(s);
  gptq_engine& e = engine_of(stem);
  if (stem.n_pending()) {
    start(s, GPTQ_GEN_PREFILL_ONLY);
    while (stem.running) step_batch(e);
    check_end(stem);
  }
  const uint32_t before = stem.n_tokens;
  std::pmr::vector<Scored> running(&e.model.runtime.memory);
  for (size_t next = 0; next < texts.size() || !running.empty();) {
    while (next < texts.size() && e.engine->has_slot()) {
      running.push_back({fork_with(s, texts[next]), next});
      ++next;
    }
    require(!running.empty(), "no session slot is free; raise max_sessions or destroy one", GPTQ_E_INVALID_STATE);
    step_batch(e);
    std::erase_if(running, [&](const Scored& scored) {
      const engine::Session& done = session_of(scored.session.get());
      if (done.running) return false;
      check_end(done);
      double sum = 0;
      for (uint32_t i = before; i < done.n_tokens; ++i) sum += double{done.logprobs[i]};
      logprobs[scored.text] = sum;
      if (n_tokens) n_tokens[scored.text] = done.n_tokens - before;
      return true;
    });
  }
}

}  // namespace

gptq_status GPTQ_CALL gptq_session_logprobs(const gptq_session* s, uint32_t first, uint32_t n, float* chosen, gptq_token_logprob* best) {
  return guard_logged(s, [&] {
    require(s && (chosen || !n), "s and chosen must not be NULL");
    const engine::Session& session = session_of(s);
    require(first <= session.n_tokens && n <= session.n_tokens - first, "there are not so many tokens");
    std::copy_n(session.logprobs + first, n, chosen);
    const uint32_t n_best = session.engine->shape().best_logprobs;
    for (uint32_t i = 0; best && i < n; ++i)
      for (uint32_t j = 0; j < n_best; ++j) {
        const engine::Candidate& c = session.best[size_t{first + i} * n_best + j];
        best[size_t{i} * n_best + j] = std::isnan(chosen[i]) ? gptq_token_logprob{-1, NAN} : gptq_token_logprob{c.token, c.logit};
      }
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_score(gptq_session* s, const gptq_string* texts, size_t n, double* logprobs, uint32_t* n_tokens, gptq_error* err) {
  return guard(err, [&] {
    require(s && ((texts && logprobs) || !n), "s, texts and logprobs must not be NULL");
    require(!session_of(s).running && !session_of(s).generating, "the session is running: step or cancel it first", GPTQ_E_INVALID_STATE);
    require(session_of(s).n_tokens > 0, "nothing stands before the texts: append text or tokens first", GPTQ_E_INVALID_STATE);
    const Owned kept(gptq_session_retain(s), gptq_session_destroy);
    score(s, {texts, n}, logprobs, n_tokens);
    return GPTQ_OK;
  });
}
