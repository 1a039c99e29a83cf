// SPDX-License-Identifier: Apache-2.0
// By how many characters more a string in progress can end. It is found once for where its rules are.
#include <algorithm>

#include "text/constraint/schema_machine.h"

namespace gptq::text::constraint {

SchemaMachine::Ends SchemaMachine::ends_of(uint32_t plan, View automata) {
  step_.assign(1, plan);
  step_.insert(step_.end(), automata.begin(), automata.end());
  uint32_t id = ends_.add(step_);
  if (id < found_ends_.size()) return found_ends_[id];
  if (id == none) {
    ends_.clear();
    found_ends_.clear();
    id = ends_.add(step_);
  }
  const Ends ends = search_ends(plans_[plan], automata);
  if (id != none) found_ends_.push_back(ends);
  return ends;
}

// Depth first, of plans with plain limits: a text that all rules end with, and on the way to it a place that is come back to.
SchemaMachine::Ends SchemaMachine::search_ends(const Plan& p, View automata) {
  constexpr size_t head = 2, behind = 8;  // an entry: the byte that is next, whether the last one began a character, then the automata
  const size_t width = p.n_rules + head;
  const auto states = [&](size_t entry) { return View(ways_).subspan(entry + head, p.n_rules); };
  const auto push = [&](View to, uint32_t begins) {
    ways_.insert(ways_.end(), {0, begins});
    ways_.insert(ways_.end(), to.begin(), to.end());
  };
  // step_: where the byte leads; false: nowhere.
  const auto go = [&](size_t entry, uint8_t byte) {
    if (!stands_for_others(byte)) return false;
    step_.clear();
    for (const uint32_t state : states(entry)) step_.push_back(patterns_.next(state, byte));
    return std::ranges::find(step_, dead) == step_.end();
  };
  const auto ends = [&](View at) { return std::ranges::all_of(at, [&](uint32_t state) { return patterns_.accepting(state); }); };
  ways_.clear();
  tried_strings_.clear();
  push(automata.first(p.n_rules), 0);
  if (std::ranges::find(automata, dead) != automata.end()) return {none, 0};
  tried_strings_.add(states(0));
  while (!ways_.empty() && !ends(states(ways_.size() - width))) {
    const size_t entry = ways_.size() - width;
    const uint32_t byte = next_tried_[ways_[entry]];
    ways_[entry] = byte + 1;
    if (byte == 256) {
      ways_.resize(entry);
      continue;
    }
    const uint8_t c = static_cast<uint8_t>(byte + ' ');
    if (!go(entry, c)) continue;
    const uint32_t before = tried_strings_.size(), id = tried_strings_.add(step_);
    if (id == none || ways_.size() + width > ways_.capacity() || patterns_.full()) return {none, 0};
    if (id == before) push(step_, (c & 0xC0) != 0x80);
  }
  if (ways_.empty()) return {none, 0};
  Ends found{0, 0};
  for (size_t entry = 0; entry < ways_.size(); entry += width) found.length += ways_[entry + 1];
  for (size_t entry = 0; entry < ways_.size() && !found.cycle; entry += width)
    for (unsigned byte = 0; byte < 0x80 && !found.cycle; ++byte) {
      if (!go(entry, static_cast<uint8_t>(byte))) continue;
      uint32_t length = 1;
      for (size_t to = entry, n = 0; n < behind; ++n, to -= width) {
        if (std::ranges::equal(states(to), step_)) {
          found.cycle = length;
          break;
        }
        if (!to) break;
        length += ways_[to + 1];
      }
    }
  return found;
}

}  // namespace gptq::text::constraint
