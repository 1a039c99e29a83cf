// SPDX-License-Identifier: Apache-2.0
// C API: sequences and texts as vectors.
#include "api/embedding.h"

#include <cmath>

#include "api/guard.h"
#include "api/texts.h"

using namespace gptq;
using namespace gptq::api;

namespace {

void write_embedding(const engine::Session& s, uint32_t flags, float* out) {
  const uint32_t n = s.engine->model().spec.n_embd;
  double squares = 0;
  for (uint32_t i = 0; i < n; ++i) squares += double{s.pooled[i]} * s.pooled[i];
  const double divisor = !(flags & GPTQ_EMBED_NORMALIZE) ? s.n_pooled : squares > 0 ? std::sqrt(squares) : 1;
  for (uint32_t i = 0; i < n; ++i) out[i] = static_cast<float>(s.pooled[i] / divisor);
}

void check_flags(uint32_t flags) {
  if (flags & ~uint32_t(GPTQ_EMBED_NORMALIZE)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown embedding flags ", flags);
}

OwnedSession session_with(gptq_engine* e, const gptq_string& text, size_t number, int32_t pooling) {
  gptq_session* s = nullptr;
  size_t n_tokens = 0;
  base::call([&](gptq_error* err) { return gptq_session_create(e, &s, err); });
  OwnedSession owned(s, gptq_session_destroy);
  base::call([&](gptq_error* err) { return gptq_session_append_text(s, text.ptr, text.size, GPTQ_TEXT_ADD_BOS, &n_tokens, err); });
  if (!n_tokens) base::fail(GPTQ_E_INVALID_ARGUMENT, "text ", number, " is empty: there is nothing to embed");
  start_prefill(s, 0, pooling);
  return owned;
}

}  // namespace

engine::Pooling gptq::api::pooling_of(int32_t value) {
  switch (value) {
    case GPTQ_POOL_NONE: return engine::Pooling::none;
    case GPTQ_POOL_LAST: return engine::Pooling::last;
    case GPTQ_POOL_MEAN: return engine::Pooling::mean;
  }
  base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown pooling ", value);
}

int32_t gptq::api::own_pooling(const model::Model& model) {
  const std::pmr::string* const said = model.find_meta("pooling");
  return !said ? GPTQ_POOL_NONE : *said == "last" ? GPTQ_POOL_LAST : *said == "mean" ? GPTQ_POOL_MEAN : GPTQ_POOL_NONE;
}

uint32_t gptq::api::own_pooling_flags(const model::Model& model) { return model.find_meta("pooling_normalize") ? uint32_t{GPTQ_EMBED_NORMALIZE} : 0; }

gptq_status GPTQ_CALL gptq_session_embedding(const gptq_session* s, uint32_t flags, float* out, size_t cap, size_t* needed) {
  return guard_logged(s, [&] {
    require(s && needed, "s and needed must not be NULL");
    check_flags(flags);
    const engine::Session& session = session_of(s);
    require(session.embedded(), "there is no embedding: start the session with PREFILL_ONLY and a pooling, and step it to its end", GPTQ_E_INVALID_STATE);
    *needed = session.engine->model().spec.n_embd;
    if (cap < *needed) return static_cast<gptq_status>(GPTQ_E_BUFFER_TOO_SMALL);
    require(out, "out is NULL");
    write_embedding(session, flags, out);
    return static_cast<gptq_status>(GPTQ_OK);
  });
}

gptq_status GPTQ_CALL gptq_embed(gptq_engine* e, const gptq_string* texts, size_t n, int32_t pooling, uint32_t flags, float* out, gptq_error* err) {
  return guard(err, [&] {
    require(e && ((texts && out) || !n), "e, texts and out must not be NULL");
    check_flags(flags);
    pooling_of(pooling);
    const model::Model& model = e->engine->model();
    if (!pooling) {
      pooling = own_pooling(model);
      flags = pooling ? own_pooling_flags(model) : uint32_t{GPTQ_EMBED_NORMALIZE};
      if (!pooling) pooling = GPTQ_POOL_LAST;
    }
    compute_texts(*e, n, [&](size_t i) { return session_with(e, texts[i], i, pooling); }, [&](size_t i, const engine::Session& done) {
      if (done.status != GPTQ_OK) base::fail(done.status, "text ", i, " could not be computed: ", gptq_status_name(done.status));
      write_embedding(done, flags, out + i * model.spec.n_embd);
    });
    return GPTQ_OK;
  });
}
