// SPDX-License-Identifier: Apache-2.0
// C API: engines.
#include <algorithm>

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
    const gptq_engine_params p = read_struct_or_default(params, "gptq_engine_params");
    void* const host_stream = cuda_stream_of(p.next);
    const engine::EngineShape shape = engine::make_shape(p, m->model->spec, m->model->placements, m->gpus.least_memory());
    const auto n_gpus = std::ranges::count_if(shape.placements, [](const model::Placement& p) { return !p.on_host(); });
    require(!host_stream || n_gpus <= 1, "a host's stream is of one GPU, and the model's layers are on several", GPTQ_E_UNSUPPORTED);
    if (shape.ctx_tokens > m->model->spec.n_ctx_train && m->model->spec.ropes[0].dynamic_factor == 0)
      m->runtime.log(GPTQ_LOG_WARN, "ctx_tokens is above what the model was trained with: quality falls beyond that");
    *out = create<gptq_engine>(m->runtime.memory, *m, shape, host_stream);
    retain(m);
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_engine_destroy(gptq_engine* e) {
  if (!e || !drop(e)) return;
  gptq_model* m = &e->model;
  destroy(m->runtime.memory, e);
  gptq_model_release(m);
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
    for (const gptq_model_gpu& gpu : e->model.gpus) {
      info.device_bytes += gpu.account.bytes;
      info.device_peak += gpu.account.peak;
    }
    write_struct(out, info);
    return GPTQ_OK;
  });
}
