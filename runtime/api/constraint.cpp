// SPDX-License-Identifier: Apache-2.0
// C API: constraints.
#include "api/constraint.h"

#include "api/text.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr size_t cache_bytes = 4 << 20;  // of masks, a constraint
constexpr size_t source_bytes_max = 1 << 20;

gptq_constraint* compile(gptq_model& m, int32_t kind, std::string_view source) {
  require(kind >= GPTQ_CONSTRAINT_CHOICE && kind <= GPTQ_CONSTRAINT_JSON_COMPACT, "unknown kind of constraint");
  require(source.size() <= source_bytes_max, "the constraint's source has more than a megabyte");
  tokenizer_of(m);
  auto* c = create<gptq_constraint>(static_cast<std::pmr::memory_resource&>(m.runtime.memory), m, kind, source, cache_bytes);
  retain(&m);
  const std::lock_guard lock(m.constraints_guard);
  c->next = m.constraints;
  m.constraints = c;
  return c;
}

}  // namespace

namespace gptq::api {

gptq_constraint* constraint_of(gptq_model& m, int32_t kind, std::string_view source) {
  {
    const std::lock_guard lock(m.constraints_guard);
    for (gptq_constraint* c = m.constraints; c; c = c->next)
      if (c->kind == kind && c->source == source) return retain(c);
  }
  return compile(m, kind, source);
}

void constrain(engine::Session& s, gptq_constraint* constraint) {
  if (constraint) retain(constraint);
  gptq_constraint_destroy(constraint_of(s));
  s.constraint_owner = constraint;
  s.constraint = constraint ? &*constraint->rules : nullptr;
}

void ban(engine::Session& s, gptq_constraint* phrases) {
  if (phrases) retain(phrases);
  gptq_constraint_destroy(phrases_of(s));
  s.phrases_owner = phrases;
  s.phrases = phrases ? &*phrases->phrases : nullptr;
}

}  // namespace gptq::api

gptq_status GPTQ_CALL gptq_constraint_compile(gptq_model* m, int32_t kind, const char* source, size_t size, gptq_constraint** out,
                                              gptq_error* err) {
  return guard(err, [&] {
    require(m && source && out, "m, source and out must not be NULL");
    *out = compile(*m, kind, text_of(source, size, "source"));
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_constraint_destroy(gptq_constraint* c) {
  if (!c) return;
  gptq_model* m = &c->model;
  {
    // With the list locked nobody takes a new reference to one that is about to go.
    const std::lock_guard lock(m->constraints_guard);
    if (!drop(c)) return;
    gptq_constraint** link = &m->constraints;
    while (*link != c) link = &(*link)->next;
    *link = c->next;
  }
  destroy(static_cast<std::pmr::memory_resource&>(m->runtime.memory), c);
  gptq_model_release(m);
}
