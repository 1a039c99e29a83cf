// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "text/constraint/schema_machine.h"

namespace gptq::text::constraint {

template <class F>
void SchemaMachine::each_in_place(const SchemaNode& n, F&& f) const {
  for (const auto* list : {&n.all, &n.any, &n.one, &n.values})
    for (const uint32_t to : *list) f(to);
  for (const auto& [name, to] : n.dependent_schemas) f(to);
  for (const uint32_t to : {n.refuse, n.condition, n.then, n.otherwise})
    if (to != none) f(to);
}

}  // namespace gptq::text::constraint
