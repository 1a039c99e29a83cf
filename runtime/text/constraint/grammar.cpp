// SPDX-License-Identifier: Apache-2.0
// A state is, sorted: its flags, then pairs of a node that takes a byte and the calls around it. Calls are shared as in Tomita's graph:
// all calls of a rule from one place of the text are one.
#include "text/constraint/grammar.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace gptq::text::constraint {
namespace {

constexpr uint32_t items_max = 1 << 14, seen_slots = 1 << 16, steps_max = 4096;
enum : uint32_t { flag_accepts = 1 };

}  // namespace

Grammar::Grammar(Nfa nfa, const GrammarSize& size, std::pmr::memory_resource* memory)
    : Machine(size.states, memory),
      nfa_(std::move(nfa)),
      work_max_(size.work),
      tried_(memory),
      plain_(size.states, 0, memory),
      states_(size.states, size.words, memory),
      calls_(size.states * 2, size.words, memory),
      steps_(std::min(size.states, steps_max), std::min(size.states, steps_max) * 8, memory),
      step_states_(memory),
      returns_(nfa_.nodes.size(), 0, memory),
      open_(memory),
      kept_(memory),
      used_(memory),
      seen_(seen_slots, 0, memory),
      places_(memory),
      edges_(memory),
      place_of_rule_(nfa_.rules.size(), 0, memory),
      key_(memory) {
  for (uint32_t i = 0; i < returns_.size(); ++i) returns_[i] = ends_at_once(i);
  find_runs();
  tried_.reserve(32);
  step_states_.reserve(std::min(size.states, steps_max));
  open_.reserve(items_max);
  kept_.reserve(items_max);
  used_.reserve(items_max);
  places_.reserve(nfa_.rules.size());
  edges_.reserve(items_max);
  key_.reserve(2 * items_max + 1);
  clear();
}

// Joins and the end alone are passed until then.
bool Grammar::ends_at_once(uint32_t node) const {
  for (unsigned steps = 0; steps < 64 && node != Nfa::none; ++steps) {
    const Nfa::Node& n = nfa_.nodes[node];
    if (n.kind == Nfa::Kind::end) return true;
    if (n.kind != Nfa::Kind::fork || n.b != Nfa::none) return false;
    node = n.a;
  }
  return false;
}

// Whether nothing but the end of the whole is reached from behind a $.
bool Grammar::reaches_end(uint32_t node) const {
  uint32_t open[64] = {node};
  for (unsigned n = 1, steps = 0; n && steps < 1000; ++steps) {
    const Nfa::Node& at = nfa_.nodes[open[--n]];
    if (at.kind == Nfa::Kind::end) return true;
    if (at.kind != Nfa::Kind::fork && at.kind != Nfa::Kind::finish) continue;
    for (const uint32_t to : {at.a, at.b})
      if (to != Nfa::none && n < 64) open[n++] = to;
  }
  return false;
}

void Grammar::clear() {
  Machine::clear();
  states_.clear();
  calls_.clear();
  steps_.clear();
  step_states_.clear();
  std::fill(plain_.begin(), plain_.end(), uint8_t{0});
  with_row(states_.add({}));  // dead
  calls_.add({});             // nothing around
}

uint32_t Grammar::start_of(uint32_t rule) {
  push(nfa_.rules[rule].first, 0);
  return close(true);
}

void Grammar::find_runs() {
  bool begins[257] = {true};
  for (const Nfa::Node& n : nfa_.nodes)
    if (n.kind == Nfa::Kind::range) begins[n.low] = begins[n.high + 1] = true;
  for (unsigned first = 0, end; first < 256; first = end) {
    for (end = first + 1; end < 256 && !begins[end];) ++end;
    for (unsigned byte = first; byte < end; ++byte) runs_[byte] = {static_cast<uint8_t>(first), static_cast<uint8_t>(end - 1)};
  }
}

int Grammar::likely(uint32_t state) {
  const auto items = states_.at(state);
  if (items.empty()) return not_known;
  const bool ends = items[0] & flag_accepts;
  if (items.size() == 1) return ends ? nothing : not_known;
  const Nfa::Node& first = nfa_.nodes[items[1]];
  for (size_t i = 1; i < items.size(); i += 2)
    if (const Nfa::Node& n = nfa_.nodes[items[i]]; n.low != n.high || n.low != first.low) return not_known;
  return ends ? not_known : first.low;
}

uint32_t Grammar::plain_run(uint32_t state) {
  if (!plain_[state]) {
    tried_.assign(1, state);
    const bool keeps = keeps_plain();
    if (full_) return 0;
    plain_[state] = 1;
    for (const uint32_t at : tried_)
      if (keeps) plain_[at] = 2;
  }
  return plain_[state] == 2 ? endless : 0;
}

// Whether plain characters lead to few states, none of them dead. tried_: those states.
bool Grammar::keeps_plain() {
  constexpr struct { uint8_t first, last, low, high; unsigned tails; } leads[] = {
      {0xC2, 0xDF, 0x80, 0xBF, 1}, {0xE0, 0xE0, 0xA0, 0xBF, 2}, {0xE1, 0xEC, 0x80, 0xBF, 2}, {0xED, 0xED, 0x80, 0x9F, 2},
      {0xEE, 0xEF, 0x80, 0xBF, 2}, {0xF0, 0xF0, 0x90, 0xBF, 3}, {0xF1, 0xF3, 0x80, 0xBF, 3}, {0xF4, 0xF4, 0x80, 0x8F, 3}};
  const auto arrive = [&](uint32_t to) {
    if (to == dead) return false;
    if (plain_[to] == 2 || std::find(tried_.begin(), tried_.end(), to) != tried_.end()) return true;
    if (plain_[to] == 1 || tried_.size() == tried_.capacity()) return false;
    tried_.push_back(to);
    return true;
  };
  const auto follow = [&](auto&& self, uint32_t from, unsigned low, unsigned high, unsigned tails) -> bool {
    uint32_t last = dead;
    for (unsigned byte = low; byte <= high; ++byte) {
      const uint32_t to = next(from, static_cast<uint8_t>(byte));
      if (to == last && to != dead) continue;
      if (to == dead || !(tails == 0 ? arrive(to) : self(self, to, 0x80, 0xBF, tails - 1))) return false;
      last = to;
    }
    return true;
  };
  for (size_t i = 0; i < tried_.size(); ++i) {
    const uint32_t from = tried_[i];
    if (!follow(follow, from, ' ', '"' - 1, 0) || !follow(follow, from, '"' + 1, '\\' - 1, 0) || !follow(follow, from, '\\' + 1, 0x7F, 0))
      return false;
    for (const auto& lead : leads) {
      uint32_t last = dead;
      for (unsigned byte = lead.first; byte <= lead.last; ++byte) {
        const uint32_t to = next(from, static_cast<uint8_t>(byte));
        if (to == last && to != dead) continue;
        if (to == dead || !follow(follow, to, lead.low, lead.high, lead.tails - 1)) return false;
        last = to;
      }
    }
  }
  return true;
}

uint32_t Grammar::find(uint32_t state, uint8_t byte) {
  const auto items = states_.at(state);
  key_.clear();
  for (size_t i = 1; i + 1 < items.size(); i += 2) {
    const Nfa::Node& n = nfa_.nodes[items[i]];
    if (n.kind == Nfa::Kind::range && n.low <= byte && byte <= n.high) key_.push_back(n.a), key_.push_back(items[i + 1]);
  }
  if (key_.empty()) return dead;
  const uint32_t known = steps_.size(), step = steps_.add(key_);
  if (step < known) return step_states_[step];
  for (size_t i = 0; i < key_.size(); i += 2) push(key_[i], key_[i + 1]);
  const uint32_t to = close(false);
  if (step == known) {
    step_states_.push_back(to);
  } else {
    steps_.clear();
    step_states_.clear();
  }
  return to;
}

// Each pair once a byte; the slots that were used are cleared by close().
void Grammar::push(uint32_t node, uint32_t calls) {
  if (node == Nfa::none || full_) return;
  const uint64_t key = (uint64_t{node} << 32 | calls) + 1;
  uint64_t at = (key * 0x9E3779B97F4A7C15u) >> (64 - std::bit_width(seen_slots - 1u));
  for (; seen_[at]; at = (at + 1) & (seen_slots - 1))
    if (seen_[at] == key) return;
  if (open_.size() == items_max || ++work_ > work_max_) {
    full_ = true;
    return;
  }
  seen_[at] = key;
  used_.push_back(static_cast<uint32_t>(at));
  open_.push_back({node, calls});
}

uint32_t Grammar::place_of(uint32_t rule) {
  uint32_t& place = place_of_rule_[rule];
  if (place == 0) {
    places_.push_back({rule, Interner::none, Interner::none});
    place = static_cast<uint32_t>(places_.size());
  }
  return place - 1;
}

void Grammar::call(const Nfa::Node& node, uint32_t calls) {
  Place& place = places_[place_of(node.b)];
  const bool returns = returns_[node.a];
  if (edges_.size() == items_max) {
    full_ = true;
    return;
  }
  edges_.push_back({returns && calls ? copies : node.a, calls, place.first});
  place.first = static_cast<uint32_t>(edges_.size() - 1);
  push(nfa_.rules[node.b].first, pending | node.b);
  if (nfa_.rules[node.b].nullable) push(node.a, calls);
}

// What is called comes after who calls it.
bool Grammar::intern_calls() {
  std::sort(places_.begin(), places_.end(),
            [&](const Place& a, const Place& b) { return nfa_.rules[a.rule].order < nfa_.rules[b.rule].order; });
  for (uint32_t i = 0; i < places_.size(); ++i) place_of_rule_[places_[i].rule] = i + 1;
  const auto known = [&](uint32_t calls) { return calls & pending ? places_[place_of_rule_[calls & ~pending] - 1].id : calls; };
  for (Place& place : places_) {
    kept_.clear();
    for (uint32_t e = place.first; e != Interner::none; e = edges_[e].next) {
      const uint32_t calls = known(edges_[e].calls);
      if (edges_[e].node != copies) {
        if (kept_.size() == items_max) return false;
        kept_.push_back({edges_[e].node, calls});
        continue;
      }
      const auto around = calls_.at(calls);
      for (size_t i = 0; i < around.size(); i += 2) {
        if (kept_.size() == items_max) return false;
        kept_.push_back({around[i], around[i + 1]});
      }
    }
    std::sort(kept_.begin(), kept_.end());
    kept_.erase(std::unique(kept_.begin(), kept_.end()), kept_.end());
    key_.clear();
    for (const Item& item : kept_) key_.push_back(item.node), key_.push_back(item.calls);
    place.id = calls_.add(key_);
    if (place.id == Interner::none) return false;
  }
  return true;
}

// Follows all that takes no byte and gives the state.
uint32_t Grammar::close(bool at_start) {
  using Kind = Nfa::Kind;
  size_t taken = 0;
  uint32_t flags = 0;
  // Items that take a byte stay in open_ behind those that are done, so that nothing is counted twice.
  for (size_t i = 0; i < open_.size() && !full_; ++i) {
    const Item item = open_[i];
    const Nfa::Node& n = nfa_.nodes[item.node];
    if (n.kind == Kind::range || n.kind == Kind::finish) {
      open_[taken++] = item;
    } else if (n.kind == Kind::call) {
      call(n, item.calls);
    } else if (n.kind == Kind::end) {
      if (item.calls & pending) continue;  // an empty rule: its call went on at once
      if (item.calls == 0) flags |= flag_accepts;
      const auto around = calls_.at(item.calls);
      for (size_t k = 0; k < around.size(); k += 2) push(around[k], around[k + 1]);
    } else if (n.kind == Kind::fork || at_start) {
      push(n.a, item.calls);
      push(n.b, item.calls);
    }
  }
  open_.resize(taken);
  if (!full_ && !intern_calls()) full_ = true;
  uint32_t state = dead;
  if (!full_) {
    for (Item& item : open_)
      if (item.calls & pending) item.calls = places_[place_of_rule_[item.calls & ~pending] - 1].id;
    std::sort(open_.begin(), open_.end());
    open_.erase(std::unique(open_.begin(), open_.end()), open_.end());
    key_.clear();
    key_.push_back(flags);
    // Behind a $ only what takes no text counts: whether the end is reached.
    for (const Item& item : open_) {
      if (nfa_.nodes[item.node].kind == Kind::finish) {
        if (reaches_end(item.node)) key_[0] |= flag_accepts;
        continue;
      }
      key_.push_back(item.node), key_.push_back(item.calls);
    }
    if (key_.size() == 1 && !key_[0]) key_.clear();
    state = with_row(states_.add(key_));
  }
  for (const Place& place : places_) place_of_rule_[place.rule] = 0;
  places_.clear();
  edges_.clear();
  open_.clear();
  kept_.clear();
  for (const uint32_t slot : used_) seen_[slot] = 0;
  used_.clear();
  work_ = 0;
  return state;
}

}  // namespace gptq::text::constraint
