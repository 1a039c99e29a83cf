// SPDX-License-Identifier: Apache-2.0
// C API: adapters.
#include "api/adapter.h"

#include <cmath>

#include "api/opened_source.h"

using namespace gptq;
using namespace gptq::api;

namespace gptq::api {

gptq_adapter* adapter_of(gptq_model& m, uint64_t fingerprint) {
  const std::lock_guard lock(m.adapters_guard);
  for (gptq_adapter* a = m.adapters; a; a = a->next)
    if (a->changes.fingerprint() == fingerprint) return retain(a);
  return nullptr;
}

void hold_adapter(engine::Session& s, gptq_adapter* adapter) {
  if (adapter) retain(adapter);
  gptq_adapter_release(adapter_of(s));
  s.adapter_owner = adapter;
}

void adapt(engine::Session& s, gptq_adapter* adapter, float scale) {
  s.engine->set_adapter(s, adapter ? &adapter->changes : nullptr, adapter ? scale : 0);
  hold_adapter(s, adapter);
}

}  // namespace gptq::api

gptq_status GPTQ_CALL gptq_adapter_load(gptq_model* m, const gptq_source* src, gptq_adapter** out, gptq_error* err) {
  return guard(err, [&] {
    require(m && src && out, "m, src and out must not be NULL");
    const OpenedSource opened(read_struct(src, "gptq_source"));
    auto* a = create<gptq_adapter>(m->runtime.memory, *m, *opened);
    retain(m);
    const std::lock_guard lock(m->adapters_guard);
    a->next = m->adapters;
    m->adapters = a;
    *out = a;
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_adapter_release(gptq_adapter* a) {
  if (!a) return;
  gptq_model* m = &a->model;
  {
    // With the list locked nobody takes a new reference to one that is about to go.
    const std::lock_guard lock(m->adapters_guard);
    if (!drop(a)) return;
    gptq_adapter** link = &m->adapters;
    while (*link != a) link = &(*link)->next;
    *link = a->next;
  }
  destroy(static_cast<std::pmr::memory_resource&>(m->runtime.memory), a);
  gptq_model_release(m);
}

gptq_status GPTQ_CALL gptq_adapter_info_get(const gptq_adapter* a, gptq_adapter_info* out) {
  return guard_logged(a ? &a->model : nullptr, [&] {
    require(a && out, "a and out must not be NULL");
    check_version(out, "gptq_adapter_info");
    gptq_adapter_info info{};
    info.rank = a->changes.rank();
    info.n_matrices = a->changes.n_matrices();
    info.host_bytes = a->changes.bytes();
    info.fingerprint = a->changes.fingerprint();
    write_struct(out, info);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_session_set_adapter(gptq_session* s, gptq_adapter* a, float scale, gptq_error* err) {
  return guard_inside(s, err, [&] {
    require(s, "s is NULL");
    engine::Session& session = session_of(s);
    require(!a || &a->model == &engine_of(session).model, "the adapter was loaded for another model");
    require(!a || std::isfinite(scale), "scale is not finite");
    require(!a || !engine_of(session).model.on_gpu(), adapters_on_gpu, GPTQ_E_UNSUPPORTED);
    require(!session.running || !session.wants_logits(), "the session is generating with GPTQ_GEN_LOGITS: step or cancel it first", GPTQ_E_INVALID_STATE);
    adapt(session, a, scale);
    return GPTQ_OK;
  });
}
