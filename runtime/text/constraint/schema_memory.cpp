// SPDX-License-Identifier: Apache-2.0
// The memory of a schema's machine, which is all taken when it is made.
#include <algorithm>

#include "text/constraint/schema_machine.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t n_states = 16'000, n_states_unique = 60'000, frames_max = 16'000, plans_max = 4'000, bounds_max = 400, links_max = 16'000, words_max = 1 << 19;
constexpr uint32_t pool_max = 1 << 18, list_max = 1 << 14, ends_max = 2048;

}  // namespace

// Where items are to be unique, a state holds what its text is.
uint32_t SchemaMachine::states_for(const Schema& schema) {
  return std::any_of(schema.nodes.begin(), schema.nodes.end(), [](const SchemaNode& n) { return n.unique; }) ? n_states_unique : n_states;
}

SchemaMachine::SchemaMachine(Schema schema, std::pmr::memory_resource* memory)
    : Machine(states_for(schema), memory),
      schema_(std::move(schema)),
      has_patterns_(!schema_.patterns.rules.empty()),
      patterns_(std::move(schema_.patterns), {.states = has_patterns_ ? 8000u : 2u, .words = has_patterns_ ? words_max : 16}, memory),
      states_(states_max(), states_max() > n_states ? 2 * words_max : words_max, memory),
      frames_(frames_max, words_max, memory),
      plan_ids_(plans_max, words_max / 4, memory),
      links_(links_max, words_max, memory),
      finishable_(4096, 1 << 16, memory),
      hopeless_(4096, 1 << 16, memory),
      tried_strings_(1024, 1 << 15, memory),
      tried_keys_(256, 1 << 13, memory),
      tried_characters_(256, 1 << 12, memory),
      ends_(ends_max, 1 << 15, memory),
      plans_(memory),
      bounds_(memory),
      found_ends_(memory),
      pool_(memory),
      f_(memory),
      key_(memory),
      roots_(memory),
      pairs_(memory),
      mask_(memory),
      order_(memory),
      contributing_(memory),
      tried_(memory),
      around_(memory),
      above_(memory),
      ways_(memory),
      step_(memory),
      keys_(memory),
      key_states_(memory),
      missing_(memory),
      kept_(memory),
      ended_(memory),
      saved_(memory),
      status_(schema_.nodes.size(), 0, memory),
      marked_(schema_.nodes.size(), 0, memory),
      held_(schema_.names.size() + 1, 0, memory),
      position_(schema_.nodes.size(), 0, memory) {
  plans_.reserve(plans_max);
  bounds_.reserve(bounds_max);
  found_ends_.reserve(ends_max);
  pool_.reserve(pool_max);
  const size_t lists = std::max<size_t>(list_max, 2 * schema_.nodes.size() + schema_.names.size() + 16);
  for (Words* words : {&f_, &key_, &roots_, &pairs_, &mask_, &order_, &contributing_, &tried_, &around_, &above_, &ways_, &step_, &keys_, &key_states_, &missing_, &kept_, &ended_, &saved_})
    words->reserve(lists);
  next_tried_[256] = 256;
  for (uint16_t byte = 256; byte-- > 0;) next_tried_[byte] = stands_for_others(static_cast<uint8_t>(byte + ' ')) ? byte : next_tried_[byte + 1u];
  clear();
}

void SchemaMachine::clear() {
  Machine::clear();
  patterns_.clear();
  states_.clear();
  frames_.clear();
  plan_ids_.clear();
  links_.clear();
  finishable_.clear();
  hopeless_.clear();
  ends_.clear();
  found_ends_.clear();
  plans_.clear();
  bounds_.clear();
  pool_.clear();
  held_in_ = none;
  with_row(states_.add({}));
  make({at_doubt});
  for (uint32_t document = 0; document < schema_.roots.size(); ++document) frames_.add({&document, 1});
}

}  // namespace gptq::text::constraint
