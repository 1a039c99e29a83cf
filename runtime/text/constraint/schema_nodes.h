// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "text/constraint/schema_machine.h"

namespace gptq::text::constraint {

inline constexpr std::string_view value_begins = "\"0123456789-tfn{[", literals[] = {"null", "false", "true"};

// Of texts in progress.
inline uint64_t mix(uint64_t hash, uint64_t next) {
  hash = (hash ^ next) * 0xD6E8FEB86659FD93u;
  return hash ^ hash >> 29;
}
// Apart from those of an empty string, array and object.
inline uint64_t literal_hash(uint32_t which) { return mix(16, which); }
inline uint64_t joined(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }
inline uint32_t low_of(uint64_t hash) { return static_cast<uint32_t>(hash); }
inline uint32_t high_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

template <class F>
void SchemaMachine::each_in_place(const SchemaNode& n, F&& f) const {
  for (const auto* list : {&n.all, &n.any, &n.one, &n.values})
    for (const uint32_t to : *list) f(to);
  for (const auto& [name, to] : n.dependent_schemas) f(to);
  for (const uint32_t to : {n.refuse, n.condition, n.then, n.otherwise})
    if (to != none) f(to);
}

}  // namespace gptq::text::constraint
