// SPDX-License-Identifier: Apache-2.0
// C API: constraints.
#include "api/guard.h"
#include "api/text.h"

using namespace gptq;
using namespace gptq::api;

namespace {

constexpr size_t cache_bytes = 4 << 20;  // of masks, a constraint
constexpr text::constraint::RegexLimits regex_limits{};
constexpr text::constraint::RegexLimits choice_limits{.nodes = 400'000, .states = 16'384};

}  // namespace

gptq_status GPTQ_CALL gptq_constraint_compile(gptq_model* m, int32_t kind, const char* source, size_t size, gptq_constraint** out,
                                              gptq_error* err) {
  return guard(err, [&] {
    require(m && source && out, "m, source and out must not be NULL");
    require(kind == GPTQ_CONSTRAINT_CHOICE || kind == GPTQ_CONSTRAINT_REGEX, "unknown kind of constraint");
    tokenizer_of(*m);
    std::string_view regex = text_of(source, size, "source");
    std::pmr::memory_resource& memory = m->runtime.memory;
    const bool choice = kind == GPTQ_CONSTRAINT_CHOICE;
    const std::pmr::string one = choice ? text::constraint::choices(regex, &memory) : std::pmr::string(&memory);
    if (choice) regex = one;
    *out = create<gptq_constraint>(memory, *m, regex, choice ? choice_limits : regex_limits, cache_bytes);
    retain(m);
    return GPTQ_OK;
  });
}

void GPTQ_CALL gptq_constraint_destroy(gptq_constraint* c) {
  if (!c || !drop(c)) return;
  gptq_model* m = &c->model;
  destroy(static_cast<std::pmr::memory_resource&>(m->runtime.memory), c);
  gptq_model_release(m);
}
