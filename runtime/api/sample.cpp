// SPDX-License-Identifier: Apache-2.0
#include "api/sample.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "api/handles.h"
#include "base/call.h"

namespace gptq::api {
namespace {

using base::call;
constexpr uint32_t rows_at_once_max = 32;

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

gptq_model_info info_of(const gptq_model* model) {
  gptq_model_info info{};
  info.struct_size = sizeof info;
  call([&](gptq_error*) { return gptq_model_info_get(model, &info); });
  return info;
}

// So many that their KV cache takes half of what the weights do, or 256 MB, but at most half of what the host still allows. A row is
// the same in whatever company.
uint32_t rows_at_once(const gptq_runtime& rt, const gptq_model_info& info, uint32_t row_tokens) {
  uint64_t room = std::max(info.host_bytes / 2, uint64_t{256} << 20);
  if (rt.memory.limit()) room = std::min(room, (rt.memory.limit() - std::min(rt.memory.limit(), rt.memory.bytes())) / 2);
  const uint64_t row_bytes = std::max<uint64_t>(1, info.kv_bytes_per_token * row_tokens);
  return static_cast<uint32_t>(std::clamp<uint64_t>(room / row_bytes, 1, rows_at_once_max));
}

// Those of rows in the making; they go with it when it ends early.
struct Sessions {
  gptq_session* of[rows_at_once_max] = {};
  ~Sessions() {
    for (gptq_session* session : of) gptq_session_destroy(session);
  }
};

void start(gptq_session*& session, gptq_engine* engine, gptq_token first, uint32_t row_tokens, uint64_t seed) {
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
}

}  // namespace

std::pmr::vector<int32_t> sample_rows(gptq_runtime& rt, const gptq_source& source, uint32_t rows, uint32_t row_tokens,
                                      gptq_progress_fn progress, void* user, std::pmr::memory_resource* memory) {
  if (row_tokens < 2) base::fail(GPTQ_E_INVALID_ARGUMENT, "row_tokens must be at least 2 where the model samples its own text");
  const Model model = load(rt, source);
  const gptq_model_info info = info_of(model.get());
  const uint32_t at_once = std::min(rows, rows_at_once(rt, info, row_tokens));
  const Engine engine = make_engine(model.get(), at_once, row_tokens);
  const gptq_token first = info.bos >= 0 ? info.bos : std::max(info.eos, 0);
  std::pmr::vector<int32_t> tokens(memory);
  Sessions sessions;
  for (uint32_t row = 0; row < rows;) {
    const uint32_t n = std::min(rows - row, at_once);
    for (uint32_t i = 0; i < n; ++i) start(sessions.of[i], engine.get(), first, row_tokens, row + i + 1);
    for (gptq_step_info step{sizeof step}; gptq_engine_step(engine.get(), 100000, &step) == GPTQ_MORE;) {
      gptq_session_info state{};
      state.struct_size = sizeof state;
      gptq_session_info_get(sessions.of[0], &state);
      const double done = (row + double(n) * state.n_tokens / row_tokens) / rows;
      if (progress && progress(user, GPTQ_PHASE_SAMPLE, static_cast<uint32_t>(1000 * done))) base::fail(GPTQ_E_CANCELLED, "sampling was cancelled");
    }
    for (uint32_t i = 0; i < n; ++i, ++row) {
      size_t count = 0;
      const size_t before = tokens.size();
      tokens.resize(before + row_tokens);
      call([&](gptq_error*) { return gptq_session_tokens(sessions.of[i], tokens.data() + before, row_tokens, &count); });
      if (count != row_tokens) base::fail(GPTQ_E_NUMERIC, "the model's own text broke off after ", count, " tokens: are its weights sound?");
      gptq_session_destroy(std::exchange(sessions.of[i], nullptr));
    }
  }
  return tokens;
}

}  // namespace gptq::api
