// SPDX-License-Identifier: Apache-2.0
#include "api/sample.h"

#include <algorithm>
#include <memory>

#include "base/failure.h"

namespace gptq::api {
namespace {

constexpr uint32_t rows_at_once = 16;

// Our own API, its errors as failures.
template <class F>
void call(F&& f) {
  gptq_error error{};
  error.struct_size = sizeof error;
  if (f(&error) < 0) throw base::Failure{error};
}

using Model = std::unique_ptr<gptq_model, decltype(&gptq_model_release)>;
using Engine = std::unique_ptr<gptq_engine, decltype(&gptq_engine_destroy)>;

Model load(gptq_runtime& rt, const gptq_source& source) {
  gptq_model* model = nullptr;
  call([&](gptq_error* error) { return gptq_model_load_from(&rt, &source, nullptr, &model, error); });
  return {model, gptq_model_release};
}

Engine make_engine(gptq_model* model, uint32_t sessions, uint32_t row_tokens) {
  gptq_engine_params params{};
  params.struct_size = sizeof params;
  params.max_sessions = sessions;
  params.ctx_tokens = row_tokens;
  gptq_engine* engine = nullptr;
  call([&](gptq_error* error) { return gptq_engine_create(model, &params, &engine, error); });
  return {engine, gptq_engine_destroy};
}

gptq_token first_token(const gptq_model* model) {
  gptq_model_info info{};
  info.struct_size = sizeof info;
  call([&](gptq_error*) { return gptq_model_info_get(model, &info); });
  return info.bos >= 0 ? info.bos : std::max(info.eos, 0);
}

gptq_session* start(gptq_engine* engine, gptq_token first, uint32_t row_tokens, uint64_t seed) {
  gptq_session* session = nullptr;
  gptq_sampling sampling{};
  sampling.struct_size = sizeof sampling;
  sampling.temperature = 1;
  sampling.seed = seed;
  gptq_generate_params params{};
  params.struct_size = sizeof params;
  params.flags = GPTQ_GEN_IGNORE_EOS;
  params.sampling = &sampling;
  params.max_tokens = row_tokens - 1;
  call([&](gptq_error* error) { return gptq_session_create(engine, &session, error); });
  call([&](gptq_error* error) { return gptq_session_append_tokens(session, &first, 1, error); });
  call([&](gptq_error* error) { return gptq_session_start(session, &params, error); });
  return session;
}

}  // namespace

std::pmr::vector<int32_t> sample_rows(gptq_runtime& rt, const gptq_source& source, uint32_t rows, uint32_t row_tokens,
                                      gptq_progress_fn progress, void* user, std::pmr::memory_resource* memory) {
  if (row_tokens < 2) base::fail(GPTQ_E_INVALID_ARGUMENT, "row_tokens must be at least 2 where the model samples its own text");
  const Model model = load(rt, source);
  const Engine engine = make_engine(model.get(), std::min(rows, rows_at_once), row_tokens);
  const gptq_token first = first_token(model.get());
  std::pmr::vector<int32_t> tokens(memory);
  gptq_session* sessions[rows_at_once];
  for (uint32_t row = 0; row < rows;) {
    const uint32_t n = std::min(rows - row, rows_at_once);
    for (uint32_t i = 0; i < n; ++i) sessions[i] = start(engine.get(), first, row_tokens, row + i + 1);
    for (gptq_step_info info{sizeof info}; gptq_engine_step(engine.get(), 100000, &info) == GPTQ_MORE;) {
      gptq_session_info state{};
      state.struct_size = sizeof state;
      gptq_session_info_get(sessions[0], &state);
      const double done = (row + double(n) * state.n_tokens / row_tokens) / rows;
      if (progress && progress(user, GPTQ_PHASE_SAMPLE, static_cast<uint32_t>(1000 * done))) base::fail(GPTQ_E_CANCELLED, "sampling was cancelled");
    }
    for (uint32_t i = 0; i < n; ++i, ++row) {
      size_t count = 0;
      const size_t before = tokens.size();
      tokens.resize(before + row_tokens);
      call([&](gptq_error*) { return gptq_session_tokens(sessions[i], tokens.data() + before, row_tokens, &count); });
      if (count != row_tokens) base::fail(GPTQ_E_NUMERIC, "the model's own text broke off after ", count, " tokens: are its weights sound?");
      gptq_session_destroy(sessions[i]);
    }
  }
  return tokens;
}

}  // namespace gptq::api
