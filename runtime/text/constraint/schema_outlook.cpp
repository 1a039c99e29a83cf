// SPDX-License-Identifier: Apache-2.0
// Whether what is begun can still come to an end: nothing is entered that is known to lead nowhere. What is found depends on the text
// alone, never on what was found before: all that sample from a state see the same mask.
#include <algorithm>
#include <utility>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// One step ahead: the state, where one of these bytes may follow; doubt where that is all that does.
uint32_t SchemaMachine::if_any(uint32_t state, std::string_view bytes) {
  if (state == dead || outlook_ || full_) return state;
  ++outlook_;
  uint32_t only = dead;
  const bool any = std::any_of(bytes.begin(), bytes.end(), [&](char byte) {
    const uint32_t to = find(state, static_cast<uint8_t>(byte));
    only = std::max(only, to);
    return to > doubt;
  });
  --outlook_;
  return any || full_ ? state : only;
}

// Whether nothing evaluates the child: who wants all to be fails.
bool SchemaMachine::unevaluated_fails(View link) const {
  const View mask = link.subspan(2 + 2 * link[1]);
  if (std::any_of(mask.begin(), mask.end(), [](uint32_t word) { return word != 0; })) return false;
  for (uint32_t i = 0; i < link[1]; ++i)
    if ((link[2 + 2 * i] & 3) != applies && status_[link[3 + 2 * i] >> 1] != no) return false;
  return true;
}

// After a judge that is not final: nodes that need not hold, and cannot any more, may make those around fail.
bool SchemaMachine::bearable(uint32_t frame, uint32_t plan) {
  while (!is_top(frame) && plans_[plan].optional) {
    const View words = frames_.at(frame), link = links_.at(words[f_link]);
    const Plan& p = plans_[words[f_plan]];
    above_.assign(words.begin(), words.end());
    uint32_t* const fails = above_.data() + f_seen + p.seen_words();
    bool news = false;
    const bool alone = unevaluated_fails(link);
    for (uint32_t i = 0; i < link[1]; ++i) {
      const uint32_t position = link[2 + 2 * i] >> 2, bit = 1u << (position % 32);
      const uint32_t use = link[2 + 2 * i] & 3;
      if (use == contains && status_[link[3 + 2 * i] >> 1] != open) {
        uint32_t* count = fails + p.node_words();
        for (uint32_t k = 0; k < position; ++k) count += node(pool_[p.nodes + k]).contains != none;
        const bool is = status_[link[3 + 2 * i] >> 1] == yes;
        *count = is ? (*count + 1) | is_one : *count | is_none;
        news = true;
      }
      if ((use != applies && !(use == unevaluated && alone)) || status_[link[3 + 2 * i] >> 1] != no || (fails[position / 32] & bit))
        continue;
      fails[position / 32] |= bit;
      news = true;
    }
    if (!news) return true;
    std::swap(f_, above_);
    coming_ = known_child;
    const bool alive = judge(words[f_plan], words[f_count] & 1 ? array : object, false);
    coming_ = no_child;
    std::swap(f_, above_);
    if (!alive) return false;
    plan = words[f_plan];
    frame = words[f_parent];
  }
  return true;
}

// Whether the container may have another child.
bool SchemaMachine::takes_child(uint32_t frame) {
  if (is_top(frame) || !plans_[frames_.at(frame)[f_plan]].caps) return true;
  const View words = frames_.at(frame);
  around_.assign(words.begin(), words.end());
  std::swap(f_, around_);
  coming_ = f_[f_link] == none ? some_child : known_child;
  const bool alive = judge(f_[f_plan], f_[f_count] & 1 ? array : object, false);
  coming_ = no_child;
  std::swap(f_, around_);
  return alive && bearable(words[f_parent], words[f_plan]);
}

// Whether the object, which is the loaded frame's, may have a key that some nodes refuse. name: none of those that are listed. whole: the key is complete, else as far as
// the patterns' automata are.
bool SchemaMachine::key_holds(uint32_t name, View automata, bool whole) {
  const Plan& p = plans_[f_[f_plan]];
  if (p.n_key_rules) return try_key(name, automata, whole);
  if (held_in_ != loaded_) std::fill(held_.begin(), held_.end(), uint8_t{0});
  held_in_ = loaded_;
  uint8_t& held = held_[std::min<size_t>(name, held_.size() - 1)];
  if (!held) held = 1 + try_key(name, automata, whole);
  return held == 2;
}

bool SchemaMachine::try_key(uint32_t name, View automata, bool whole) {
  const Plan& p = plans_[f_[f_plan]];
  const View rules = list(p.key_rules, p.n_key_rules);
  around_.assign(f_.begin(), f_.end());
  uint32_t* const fails = around_.data() + f_seen + p.seen_words();
  bool news = name != none;
  if (name != none) {
    const uint32_t at = place_of(name, p);
    around_[f_seen + at / 32] |= 1u << (at % 32);
    if (f_[f_place]) around_[f_place] = pool_[p.ranks + at] + 2;
  } else if (f_[f_place]) {
    around_[f_place] = p.n_names + 2;
    news = true;
  }
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    bool matched = false, refused = false;
    if (const uint32_t child = name == none ? none : n.child(name); child != none) {
      matched = true;
      refused = node(child).never;
    }
    for (const auto& [rule, child] : n.patterns) {
      const uint32_t state = automata[static_cast<size_t>(std::lower_bound(rules.begin(), rules.end(), rule) - rules.begin())];
      if (whole ? !patterns_.accepting(state) : state == dead) continue;
      matched = true;
      refused |= whole && node(child).never;
    }
    refused |= !matched && n.additional != none && node(n.additional).never;
    if (!refused) continue;
    fails[i / 32] |= 1u << (i % 32);
    news = true;
  }
  if (!news && !p.caps && !p.counts_names) return true;
  return object_bearable(known_child);
}

// Whether around_, which is as the loaded frame is with the child that comes, may be.
bool SchemaMachine::object_bearable(Coming coming) {
  std::swap(f_, around_);
  coming_ = coming;
  const bool alive = judge(f_[f_plan], object, false);
  coming_ = no_child;
  std::swap(f_, around_);
  return alive && bearable(f_[f_parent], f_[f_plan]);
}

// After judging a key that is in progress: nodes whose propertyNames need not hold, and refuse it, may make those around fail.
bool SchemaMachine::names_bearable(const Plan& p) {
  if (!plans_[p.names_plan].optional) return true;
  around_.assign(f_.begin(), f_.end());
  bool news = false;
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (const uint32_t names = node(pool_[p.nodes + i]).names; names != none && status_[names] == no)
      around_[f_seen + p.seen_words() + i / 32] |= 1u << (i % 32), news = true;
  return !news || object_bearable(some_child);
}

// In strings and keys; where several nodes have a say in characters, the walk finds it.
uint32_t SchemaMachine::plain_run(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty()) return 0;
  if (s[0] == loose_string) {
    const Plan& p = plans_[s[2]];
    return s[4] || s[7] != long_step ? 0 : p.n_rules == 0 ? endless : p.n_rules == 1 && p.max_length == none ? patterns_.plain_run(s[8]) : 0;
  }
  if (s[0] != in_string && s[0] != in_key) return 0;
  if (s[0] == in_key) {
    const Plan& p = plans_[frames_.at(s[1])[f_plan]];
    if (s[2] || s[3] || !p.free_keys || p.names_plan != none) return 0;
    load(s[1]);
    if (rank_limit(p) != none) return 0;
    if (!keys_tried(p)) return endless;
    return p.n_key_rules == 0 && key_holds(none, {}, false) ? endless : 0;
  }
  const Plan& p = plans_[s[2]];
  if (s[3] || s[4]) return 0;
  if (p.plain_strings) return endless;
  if (p.narrow_strings || within_unique(s[1])) return 0;
  const SchemaNode* limiting = nullptr;
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (const SchemaNode& n = node(pool_[p.nodes + i]); n.limits_strings()) {
      if (limiting) return 0;
      limiting = &n;
    }
  if (p.n_rules) return patterns_.plain_run(s[8]);
  if (!limiting) return endless;
  // Where the node need not hold, whether a longer string is dead is tried.
  const bool ends = limiting->max_length != none;
  count_ = ends ? limiting->max_length + 1 : limiting->min_length;
  automata_ = {};
  if (judge(s[2], string, false) && bearable(s[1], s[2])) return ends ? 0 : endless;
  return ends ? limiting->max_length - s[5] : 0;
}

bool SchemaMachine::is_taken(uint64_t hash, View taken) const {
  for (size_t at = 0; at < taken.size(); at += 2)
    if (joined(taken[at], taken[at + 1]) == hash) return true;
  return false;
}

// Hashes of the items that may not come again.
SchemaMachine::View SchemaMachine::taken_in(uint32_t frame) const {
  if (!hashing(frame)) return {};
  const View words = frames_.at(frame);
  const Plan& p = plans_[words[f_plan]];
  bool unique = false;
  for (uint32_t i = 0; i < p.n_nodes && p.unique; ++i) unique |= pool_[p.must + i] && node(pool_[p.nodes + i]).unique;
  return unique ? words.last(2 * words[f_hashes]) : View();
}

}  // namespace gptq::text::constraint
