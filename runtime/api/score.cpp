// SPDX-License-Identifier: Apache-2.0
// C API: log-probabilities, and how likely texts are.
#include <cmath>

#include "api/guard.h"
#include "api/texts.h"

using namespace gptq;
using namespace gptq::api;

namespace {

void check_end(const engine::Session& s) {
  if (s.status != GPTQ_OK) base::fail(s.status, "a text could not be computed: status ", s.status);
}

OwnedSession fork_with(gptq_session* s, const gptq_string& text) {
  gptq_session* fork = nullptr;
  base::call([&](gptq_error* err) { return gptq_session_fork(s, &fork, err); });
  OwnedSession owned(fork, gptq_session_destroy);
  base::call([&](gptq_error* err) { return gptq_session_append_text(fork, text.ptr, text.size, 0, nullptr, err); });
  start_prefill(fork, GPTQ_GEN_LOGPROBS);
  return owned;
}

void score(gptq_session* s, std::span<const gptq_string> texts, double* logprobs, uint32_t* n_tokens) {
  const engine::Session& stem = session_of(s);
  gptq_engine& e = engine_of(stem);
  if (stem.n_pending()) {
    start_prefill(s, 0);
    while (stem.running) step_batch(e);
    check_end(stem);
  }
  const uint32_t before = stem.n_tokens;
  compute_texts(e, texts.size(), [&](size_t i) { return fork_with(s, texts[i]); }, [&](size_t i, const engine::Session& done) {
    check_end(done);
    double sum = 0;
    for (uint32_t t = before; t < done.n_tokens; ++t) sum += double{done.logprobs[t]};
    logprobs[i] = sum;
    if (n_tokens) n_tokens[i] = done.n_tokens - before;
  });
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
    const OwnedSession kept(gptq_session_retain(s), gptq_session_destroy);
    score(s, {texts, n}, logprobs, n_tokens);
    return GPTQ_OK;
  });
}
