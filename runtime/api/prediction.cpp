// SPDX-License-Identifier: Apache-2.0
// C API: what the host foretells of a session's output.
#include "api/prediction.h"

#include <memory>

#include "api/text.h"

using namespace gptq;
using namespace gptq::api;

namespace {

void release(gptq_prediction* p) {
  if (p && drop(p)) destroy(static_cast<std::pmr::memory_resource&>(p->runtime.memory), p);
}

}  // namespace

namespace gptq::api {

void predict(engine::Session& s, gptq_prediction* prediction) {
  if (prediction) retain(prediction);
  release(prediction_of(s));
  s.prediction_owner = prediction;
  s.prediction = prediction ? std::span<const int32_t>(prediction->tokens) : std::span<const int32_t>();
  s.predicted = 0;
}

}  // namespace gptq::api

gptq_status GPTQ_CALL gptq_session_set_prediction(gptq_session* s, const char* text, size_t size, uint32_t flags, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s, "s is NULL");
    if (flags & ~uint32_t(GPTQ_TEXT_PARSE_SPECIAL)) base::fail(GPTQ_E_INVALID_ARGUMENT, "flags of a prediction are GPTQ_TEXT_PARSE_SPECIAL or none, not ", flags);
    const std::string_view given = text_of(text, size, "text");
    gptq_runtime& rt = engine_of(session_of(s)).model.runtime;
    std::unique_ptr<gptq_prediction, void (*)(gptq_prediction*)> prediction(nullptr, release);
    if (text) prediction.reset(create<gptq_prediction>(rt.memory, rt, encode(engine_of(session_of(s)).model, given, flags)));
    predict(session_of(s), prediction.get());
    return GPTQ_OK;
  });
}
