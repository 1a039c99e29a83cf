// SPDX-License-Identifier: Apache-2.0
// Whether what is begun can still come to an end: nothing is entered that is known to lead nowhere. What is found depends on the text
// alone, never on what was found before: all that sample from a state see the same mask.
#include <algorithm>
#include <utility>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// One step ahead: the state, where one of these bytes may follow.
uint32_t SchemaMachine::if_any(uint32_t state, std::string_view bytes) {
  if (state == dead || outlook_ || full_) return state;
  ++outlook_;
  const bool any = std::any_of(bytes.begin(), bytes.end(), [&](char byte) { return find(state, static_cast<uint8_t>(byte)) != dead; });
  --outlook_;
  return any || full_ ? state : dead;
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
      if (use == contains && status_[link[3 + 2 * i] >> 1] == yes) {
        uint32_t* count = fails + p.node_words();
        for (uint32_t k = 0; k < link[2 + 2 * i] >> 2; ++k) count += node(pool_[p.nodes + k]).contains != none;
        ++*count;
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

// Whether the object may have a key that some nodes refuse. name: none of those that are listed. whole: the key is complete, else as far as
// the patterns' automata are.
bool SchemaMachine::key_holds(uint32_t name, View automata, bool whole) {
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
  if (!news) return true;
  std::swap(f_, around_);
  coming_ = known_child;
  const bool alive = judge(f_[f_plan], object, false);
  coming_ = no_child;
  std::swap(f_, around_);
  return alive && bearable(f_[f_parent], f_[f_plan]);
}

// In strings and keys; where several nodes have a say in characters, the walk finds it.
uint32_t SchemaMachine::plain_run(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty() || (s[0] != in_string && s[0] != in_key)) return 0;
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
  if (p.narrow_strings || hashing(s[1])) return 0;
  const SchemaNode* limiting = nullptr;
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (const SchemaNode& n = node(pool_[p.nodes + i]); n.limits_strings()) {
      if (limiting) return 0;
      limiting = &n;
    }
  if (p.n_rules) return patterns_.plain_run(s[8]);
  if (!limiting || limiting->max_length == none) return endless;
  // Where the node need not hold, whether a longer string is dead is tried.
  count_ = limiting->max_length + 1;
  automata_ = {};
  return judge(s[2], string, false) && bearable(s[1], s[2]) ? 0 : limiting->max_length - s[5];
}

// Whether the string may end here.
bool SchemaMachine::string_holds(uint32_t frame, uint32_t plan, uint64_t hash) {
  if (!judge(plan, string, true) || !bearable(frame, plan)) return false;
  return !is_taken(mix(hash, 3), taken_in(frame));
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

// The state, where a text that ends it is left.
uint32_t SchemaMachine::string_state(std::initializer_list<uint32_t> head, View automata) {
  const uint32_t state = make(head, automata);
  if (state == dead) return dead;
  const View s = states_.at(state);
  return s[3] || string_possible(s[1], s[2], s.subspan(8), s[5] + (s[4] != 0), joined(s[6], s[7])) ? state : dead;
}

// A search for a text that ends it, of characters as they are after escapes. One that takes too long says yes.
bool SchemaMachine::string_possible(uint32_t frame, uint32_t plan, View automata, uint32_t count, uint64_t hash) {
  const Plan p = plans_[plan];
  const bool hashed = hashing(frame);
  if (!p.narrow_strings && (!hashed || p.plain_strings)) return true;
  const size_t width = p.n_rules + 6, head = 6;
  enum : size_t { at_byte = 0, at_frame, at_plan, at_count, at_hash };  // an entry: the byte that is next, then what it is known by
  tried_strings_.clear();
  ways_.clear();
  const auto known_by = [&](size_t entry) { return View(ways_).subspan(entry + 1, width - 1); };
  const auto push = [&](View states, uint32_t n, uint64_t h) {
    ways_.insert(ways_.end(), {0, frame, plan, n, low_of(h), high_of(h)});
    ways_.insert(ways_.end(), states.begin(), states.end());
  };
  // Whether the last entry is one that ends well; where it was here before it goes.
  bool found = false;
  const auto look = [&] {
    const size_t entry = ways_.size() - width;
    const uint32_t before = tried_strings_.size();
    if (tried_strings_.add(known_by(entry)) != before) {
      found = tried_strings_.size() == before && tried_strings_.add(known_by(entry)) == none;  // no place for another: enough
      ways_.resize(entry);
      return;
    }
    count_ = ways_[entry + at_count];
    automata_ = View(ways_).subspan(entry + head, p.n_rules);
    found = finishable_.has(known_by(entry)) || string_holds(frame, plan, joined(ways_[entry + at_hash], ways_[entry + at_hash + 1]));
    if (!found && !judge(plan, string, false)) ways_.resize(entry);
  };
  push(automata.first(p.n_rules), count, hash);
  look();
  while (!found && !ways_.empty() && !patterns_.full()) {
    const size_t entry = ways_.size() - width;
    const uint32_t byte = ways_[entry + at_byte]++;
    if (byte == 256) {
      ways_.resize(entry);
      continue;
    }
    if (ways_.size() + width > ways_.capacity()) return true;
    const uint8_t c = static_cast<uint8_t>(byte + ' ');  // letters first
    if (c >= 0x80 && !p.n_rules) continue;
    step_.clear();
    bool any = !p.n_rules;
    for (uint32_t i = 0; i < p.n_rules; ++i) {
      step_.push_back(patterns_.next(ways_[entry + head + i], c));
      any |= step_.back() != dead;
    }
    if (!any && c != 'a') continue;  // one byte stands for all that no rule knows
    const uint32_t n = std::min(ways_[entry + at_count] + ((c & 0xC0) != 0x80), p.length_cap);
    const uint64_t h = joined(ways_[entry + at_hash], ways_[entry + at_hash + 1]);
    push(step_, n, hashed ? mix(h + 1, c) : h);
    look();
  }
  if (patterns_.full()) return full_ = true, false;
  for (size_t entry = 0; found && entry < ways_.size(); entry += width)
    if (finishable_.add(known_by(entry)) == none) {
      finishable_.clear();
      break;
    }
  return found;
}

}  // namespace gptq::text::constraint
