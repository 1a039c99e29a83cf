// SPDX-License-Identifier: Apache-2.0
// What unevaluatedProperties and unevaluatedItems are of: the children that no node evaluated which holds.
#include <algorithm>

#include "text/constraint/schema_machine.h"

namespace gptq::text::constraint {

// Marks whose evaluations count for node i.
void SchemaMachine::contributing(uint32_t i, const Plan& plan) {
  Words& waiting = order_;
  waiting.assign(1, i);
  while (!waiting.empty()) {
    const uint32_t at = waiting.back();
    waiting.pop_back();
    const uint32_t p = position_[at];
    if (contributing_[p / 32] >> (p % 32) & 1) continue;
    contributing_[p / 32] |= 1u << (p % 32);
    const SchemaNode& n = node(at);
    const auto add = [&](uint32_t to) {
      if (to != none && status_[to] == yes && waiting.size() < waiting.capacity()) waiting.push_back(to);
    };
    for (const auto* list : {&n.all, &n.any, &n.one})
      for (const uint32_t to : *list) add(to);
    add(n.condition);
    if (n.condition != none) add(status_[n.condition] == yes ? n.then : n.otherwise);
    for (const auto& [name, to] : n.dependent_schemas)
      if (what_ == object && is_seen(name, plan)) add(to);
  }
}

bool SchemaMachine::leaves_unevaluated(uint32_t i, uint32_t position, const Plan& plan) {
  const uint32_t words = plan.node_words();
  contributing_.assign(words, 0);
  contributing(i, plan);
  for (size_t at = f_seen + plan.seen_words() + words + plan.n_contains; at < f_.size() - 2 * f_[f_hashes]; at += 2 * words) {
    bool evaluated = f_[at + words + position / 32] >> (position % 32) & 1;
    for (uint32_t w = 0; w < words; ++w) evaluated |= ((f_[at + w] | f_[at + words + w]) & contributing_[w]) != 0;
    if (!evaluated) return true;
  }
  return false;
}

}  // namespace gptq::text::constraint
