// SPDX-License-Identifier: Apache-2.0
// C API: engines.
#include <algorithm>
#include <memory>
#include <utility>

#include "api/guard.h"
#include "api/handles.h"

using namespace gptq;
using namespace gptq::api;

namespace {

// The one extension of gptq_engine_params.
void* cuda_stream_of(const gptq_ext* next) {
  if (!next) return nullptr;
  require(next->type == GPTQ_EXT_CUDA_STREAM && !next->next, "unknown extension struct in `next`", GPTQ_E_UNSUPPORTED);
  require(next->struct_size == sizeof(gptq_ext_cuda_stream), "gptq_ext_cuda_stream: set struct_size to its size", GPTQ_E_STRUCT_VERSION);
  return reinterpret_cast<const gptq_ext_cuda_stream*>(next)->stream;
}

gptq_engine* make_engine(gptq_model& m, const gptq_engine_params& p) {
  void* const host_stream = cuda_stream_of(p.next);
  const engine::EngineShape shape = engine::make_shape(p, m.model->spec, m.model->placements, m.gpus.least_memory());
  const auto n_gpus = std::ranges::count_if(shape.placements, [](const model::Placement& p) { return !p.on_host(); });
  require(!host_stream || n_gpus <= 1, "a host's stream is of one GPU, and the model's layers are on several", GPTQ_E_UNSUPPORTED);
  if (shape.ctx_tokens > m.model->spec.n_ctx_train && m.model->spec.ropes[0].dynamic_factor == 0)
    m.runtime.log(GPTQ_LOG_WARN, "ctx_tokens is above what the model was trained with: quality falls beyond that");
  gptq_engine* const e = create<gptq_engine>(m.runtime.memory, m, shape, host_stream);
  retain(&m);
  return e;
}

// How many tokens are the same to both models, from the first; a token without text is unknown to a model, and may be anything to the other.
uint32_t tokens_in_common(const gptq_model& ours, const gptq_model& drafts) {
  const uint32_t n_ours = ours.model->spec.n_vocab, n_drafts = drafts.model->spec.n_vocab, n = std::min(n_ours, n_drafts);
  if (!ours.tokenizer || !drafts.tokenizer) {
    if (n_ours != n_drafts) base::fail(GPTQ_E_INVALID_ARGUMENT, "the draft model has ", n_drafts, " tokens, the engine's ", n_ours, ", and not both have a tokenizer");
    return n;
  }
  for (uint32_t i = 0; i < n; ++i) {
    const auto token = static_cast<int32_t>(i);
    const std::string_view a = ours.tokenizer->token_bytes(token), b = drafts.tokenizer->token_bytes(token);
    if (a != b && !a.empty() && !b.empty())
      base::fail(GPTQ_E_INVALID_ARGUMENT, "the draft model has other tokens: ", i, " is \"", b, "\", to the engine's model \"", a, "\"");
  }
  return n;
}

// As the engine is, where nothing else is said.
gptq_engine_params draft_params(const engine::EngineShape& shape, const gptq_engine_params* params) {
  gptq_engine_params p = read_struct_or_default(params, "gptq_engine_params");
  if (p.max_sessions && p.max_sessions != shape.max_sessions)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "max_sessions = ", p.max_sessions, ": a draft model's engine has as many as its engine, ", shape.max_sessions);
  if (p.ctx_tokens > shape.ctx_tokens)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "ctx_tokens = ", p.ctx_tokens, " is more than the engine's, ", shape.ctx_tokens);
  p.max_sessions = shape.max_sessions;
  if (!p.ctx_tokens) p.ctx_tokens = shape.ctx_tokens;
  if (!p.page_tokens) p.page_tokens = shape.page_tokens;
  return p;
}

}  // namespace

gptq_engine::gptq_engine(gptq_model& m, const engine::EngineShape& shape, void* host_stream) : model(m), gpus(&m.runtime.memory) {
  std::pmr::vector<const device::Gpu*> by_number(m.gpus.gpus().size(), nullptr, &m.runtime.memory);
  for (const model::Placement& p : shape.placements) {
    if (p.on_host()) continue;
    gptq_model_gpu& own = m.gpus[p.memory];
    by_number[p.memory] = &gpus.emplace_back(*own.request.table, own.request.ordinal, own.account, host_stream, &own.gpu);
  }
  engine.emplace(*m.model, m.text(), shape, m.runtime.kernels, m.runtime.pool, by_number, m.runtime.memory.part(GPTQ_TAG_ENGINE));
}

gptq_status GPTQ_CALL gptq_engine_create(gptq_model* m, const gptq_engine_params* params, gptq_engine** out, gptq_error* err) {
  return guard(err, [&] {
    require(m && out, "m and out must not be NULL");
    *out = make_engine(*m, read_struct_or_default(params, "gptq_engine_params"));
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_engine_destroy(gptq_engine* e) {
  if (!e || !drop(e)) return;
  gptq_model* m = &e->model;
  gptq_engine* const draft = e->draft;
  destroy(m->runtime.memory, e);
  gptq_engine_destroy(draft);
  gptq_model_release(m);
}

gptq_status GPTQ_CALL gptq_engine_set_draft(gptq_engine* e, gptq_model* draft, const gptq_engine_params* params, gptq_error* err) {
  return guard_inside(e, err, [&] {
    require(e, "e is NULL");
    std::unique_ptr<gptq_engine, void (*)(gptq_engine*)> made(nullptr, gptq_engine_destroy);
    uint32_t n_common = 0;
    if (draft) {
      require(&draft->runtime == &e->model.runtime, "the draft model is of another runtime");
      n_common = tokens_in_common(e->model, *draft);
      require(e->engine->speculates(), "the engine's model has recurrent layers or rope that depends on the length: nothing can be guessed for it", GPTQ_E_UNSUPPORTED);
      made.reset(make_engine(*draft, draft_params(e->engine->shape(), params)));
      require(made->engine->speculates(), "the draft model has recurrent layers or rope that depends on the length", GPTQ_E_UNSUPPORTED);
    }
    e->engine->set_draft(made ? &*made->engine : nullptr, n_common);
    gptq_engine_destroy(std::exchange(e->draft, made.release()));
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_engine_step(gptq_engine* e, uint32_t budget_us, gptq_step_info* info) {
  return guard_logged(e, [&] {
    require(e, "e is NULL");
    if (info) check_version(info, "gptq_step_info");
    gptq_step_info result{};
    const gptq_status status = e->engine->step(budget_us, false, result);
    if (info) write_struct(info, result);
    return status;
  });
}

gptq_session* GPTQ_CALL gptq_engine_next_readable(gptq_engine* e) {
  gptq_session* readable = nullptr;
  guard_logged(e, [&] {
    if (e) readable = handle_of(e->engine->next_readable());
    return GPTQ_OK;
  });
  return readable;
}

gptq_status GPTQ_CALL gptq_engine_memory(const gptq_engine* e, gptq_memory_info* out) {
  return guard_logged(e, [&] {
    require(e && out, "e and out must not be NULL");
    check_version(out, "gptq_memory_info");
    gptq_memory_info info{};
    info.page_tokens = e->engine->shape().page_tokens;
    info.kv_pages_total = e->engine->pages().n_pages();
    info.kv_pages_used = info.kv_pages_total - e->engine->pages().n_free();
    info.host_bytes = e->model.runtime.memory.bytes();
    info.host_peak = e->model.runtime.memory.peak();
    const auto add_gpus = [&](const gptq_model& m) {
      for (const gptq_model_gpu& gpu : m.gpus) {
        info.device_bytes += gpu.account.bytes;
        info.device_peak += gpu.account.peak;
      }
    };
    add_gpus(e->model);
    if (e->draft && &e->draft->model != &e->model) add_gpus(e->draft->model);
    write_struct(out, info);
    return GPTQ_OK;
  });
}
