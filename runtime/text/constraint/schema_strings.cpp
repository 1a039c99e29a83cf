// SPDX-License-Identifier: Apache-2.0
// Strings and keys in progress.
#include <algorithm>
#include <bit>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// Whether a key may go on as one of these names, or as one that no list has.
bool SchemaMachine::key_possible(uint32_t low, uint32_t high, View automata) {
  constexpr uint32_t tries_max = 1000;
  const Plan& p = plans_[f_[f_plan]];
  const bool tries = keys_tried(p);
  const uint32_t limit = rank_limit(p);
  if (limit == none && others_possible(p, automata) && (!tries || key_holds(none, automata, false))) return true;
  uint32_t tried = 0;
  for (uint32_t i = low; i < high; ++i) {
    if (!pool_[p.viable + i] || f_[f_seen + i / 32] >> (i % 32) & 1 || is_passed(i, p) || pool_[p.ranks + i] > limit) continue;
    if (!tries || ++tried > tries_max || key_holds(pool_[p.names + i], automata, false)) return true;
  }
  return false;
}

// In compact JSON: of the names that must come the first that did not; nothing behind it may come.
uint32_t SchemaMachine::rank_limit(const Plan& p) const {
  uint32_t limit = none;
  for (uint32_t i = 0; i < p.n_nodes && f_[f_place]; ++i)
    for (const uint32_t name : node(pool_[p.nodes + i]).required)
      if (pool_[p.must + i] && !is_seen(name, p)) limit = std::min(limit, pool_[p.ranks + place_of(name, p)]);
  return limit;
}

// Keys that no list has.
bool SchemaMachine::others_possible(const Plan& p, View automata, bool whole) {
  if (p.names_listed) return false;
  if (p.free_keys) return true;
  // Of each that must hold and is closed, some pattern is still possible.
  const View rules = list(p.key_rules, p.n_key_rules);
  for (uint32_t i = 0, row = p.within; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const bool own_alone = n.additional != none && node(n.additional).never, none_left = leaves_none(p, i);
    if (none_left) row += p.node_words();
    if (!pool_[p.must + i] || !(own_alone || none_left)) continue;
    bool possible = false;
    for (uint32_t k = own_alone ? i : 0; k <= i; ++k) {
      if (!own_alone && !(pool_[row - p.node_words() + k / 32] >> (k % 32) & 1)) continue;
      const SchemaNode& other = node(pool_[p.nodes + k]);
      possible |= !own_alone && other.additional != none && !node(other.additional).never;
      possible |= !own_alone && other.unevaluated_properties != none && !node(other.unevaluated_properties).never;
      for (const auto& [rule, child] : other.patterns)
        if (const uint32_t state = automata[static_cast<size_t>(std::lower_bound(rules.begin(), rules.end(), rule) - rules.begin())]; state != dead)
          possible |= !whole || (patterns_.accepting(state) && !node(child).never);
    }
    if (!possible) return false;
  }
  return true;
}

// Of the names that fit and were not there yet the first that the schema has.
int SchemaMachine::likely_in_key(View s) const {
  const View words = frames_.at(s[1]);
  const Plan& p = plans_[words[f_plan]];
  uint32_t best = none;
  std::string_view name;
  for (uint32_t i = s[4]; i < s[5]; ++i) {
    const uint32_t rank = pool_[p.ranks + i];
    if (words[f_seen + i / 32] >> (i % 32) & 1 || rank + 1 < words[f_place] || rank >= best) continue;
    best = rank;
    name = schema_.names[pool_[p.names + i]];
  }
  if (s[2] || s[3] || best == none) return not_known;
  return s[6] < name.size() ? static_cast<uint8_t>(name[s[6]]) : '"';
}

int SchemaMachine::likely(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty()) return not_known;
  switch (s[0]) {
    case at_value: {
      if (s[3]) return not_known;
      const uint8_t types = plans_[s[2]].types;
      return types == type_string ? '"' : types == type_object ? '{' : types == type_array ? '[' : not_known;
    }
    case in_string: {
      if (s[3] || s[4] || plans_[s[2]].n_rules != 1) return not_known;
      const int byte = patterns_.likely(s[8]);
      return byte == nothing || byte == '"' || byte == '\\' ? '"' : byte;
    }
    case in_literal: return static_cast<uint8_t>(literals[s[3]][s[4]]);
    case at_first_key:
    case at_key: return '"';
    case in_key: return likely_in_key(s);
    case at_colon: return ':';
    case after_value: {
      const bool is_array = frames_.at(s[1])[f_count] & 1;
      const uint8_t closing = is_array ? ']' : '}';
      const bool closes = next(state, closing) != dead, goes_on = next(state, ',') != dead;
      return closes == goes_on ? not_known : closes ? closing : ',';
    }
    case at_end: return nothing;
    default: return not_known;
  }
}

uint32_t SchemaMachine::begin_key(uint32_t frame) {
  load(frame);
  const Plan p = plans_[f_[f_plan]];
  Words& states = key_states_;
  states.clear();
  for (const uint32_t rule : list(p.key_rules, p.n_key_rules)) states.push_back(patterns_.start_of(rule));
  if (p.names_plan != none) {
    const Plan q = plans_[p.names_plan];
    for (const uint32_t rule : list(q.rules, q.n_rules)) states.push_back(patterns_.start_of(rule));
  }
  if (full_ || patterns_.full()) return full_ = true, dead;
  if (!takes_child(frame) || !key_possible(0, p.n_names, states) || !key_left(any_key, f_[f_plan], {0, p.n_names, 0}, 0, 0, states)) return dead;
  return make({in_key, frame, 0, 0, 0, p.n_names, 0, 0, 0, 0}, states);
}

void SchemaMachine::advance_key(KeyPlace& place, uint8_t byte, const Plan& plan) const {
  const auto byte_at = [&](uint32_t name) -> int {
    const std::string_view text = schema_.names[pool_[plan.names + name]];
    return place.depth < text.size() ? static_cast<uint8_t>(text[place.depth]) : -1;
  };
  while (place.low < place.high && byte_at(place.low) < byte) ++place.low;
  uint32_t end = place.low;
  while (end < place.high && byte_at(end) == byte) ++end;
  place.high = end;
  ++place.depth;
  if (place.low == place.high) place = {};
}

// Whether some character that the escape can become may come. Of those that begin with the same bytes all are passed over at once; a search
// that takes too long says yes.
template <class Alive>
bool SchemaMachine::escape_possible(const StringReader& reader, bool compact, View states, const KeyPlace* key, Alive&& alive) {
  auto [code, last] = reader.range();
  if (compact) last = std::min<uint32_t>(last, '\\');
  tried_characters_.clear();
  for (unsigned tries = 0; (code = reader.behind_halves(code)) <= last && tries < 2000; ++tries) {
    if (compact && !reader.can_need(code)) {
      ++code;
      continue;
    }
    StringReader one{};
    one.put(code);
    tried_.assign(states.begin(), states.end());
    KeyPlace at = key ? *key : KeyPlace{};
    uint32_t taken = 0;
    bool lives = true;
    for (; taken < one.n && lives; ++taken) {
      if (at.low < at.high) advance_key(at, one.bytes[taken], plans_[f_[f_plan]]);
      for (uint32_t& state : tried_) state = patterns_.next(state, one.bytes[taken]);
      lives = alive(at, View(tried_), std::span(one.bytes).first(taken + 1));
      // In keys nothing but rules and names tells characters apart: what was tried as a whole is not tried again.
      const uint32_t others = key && lives && taken + 1 < one.n ? (1u << 6 * (one.n - taken - 1)) - 1 : 0;
      if (!others || (code & others) || (code | others) > last) continue;
      tried_.insert(tried_.end(), {others, at.low, at.high, at.depth});
      const uint32_t before = tried_characters_.size();
      lives = tried_characters_.add(tried_) >= before;
      tried_.resize(states.size());
    }
    if (lives) return true;
    const uint32_t width = 6 * (one.n - taken);
    code = ((code >> width) + 1) << width;
  }
  return code <= last;
}

uint32_t SchemaMachine::on_key(View s, uint8_t byte) {
  load(s[1]);
  const Plan p = plans_[f_[f_plan]];
  StringReader reader{.escape = s[2], .utf8 = s[3]};
  if (f_[f_place] && !reader.is_needful(byte)) return dead;
  const auto result = reader.take(byte);
  if (result == StringReader::wrong) return dead;
  if (result == StringReader::closes) return end_key(s);
  KeyPlace place{s[4], s[5], s[6]};
  uint32_t count = s[7];
  Words& states = key_states_;
  states.assign(s.begin() + 10, s.end());
  uint64_t hash = joined(s[8], s[9]);
  for (uint32_t i = 0; i < reader.n; ++i) {
    const uint8_t c = reader.bytes[i];
    advance_key(place, c, p);
    if (f_[f_hashing] == 1) hash = mix(hash + 1, c);
    for (uint32_t& state : states) state = patterns_.next(state, c);
  }
  if (patterns_.full()) return full_ = true, dead;
  if (p.names_plan != none) count = std::min(count + reader.character, plans_[p.names_plan].length_cap);
  const auto alive = [&](const KeyPlace& at, View automata, std::span<const uint8_t> character) {
    if (!key_possible(at.low, at.high, automata)) return false;
    const uint32_t begun = count + (reader.escape || reader.utf8);  // with the one that is
    if (p.names_plan != none) {
      count_ = begun;
      automata_ = automata.subspan(p.n_key_rules);
      if (!judge(p.names_plan, string, false) || !names_bearable(p)) return false;
    }
    if (character.empty()) return key_left(reader.escape ? longer_key : any_key, f_[f_plan], at, count, reader.utf8, automata);
    return static_cast<int>(character.size()) < std::countl_one(character[0]) || key_left(any_key, f_[f_plan], at, begun, 0, automata);
  };
  if (!alive(place, states, {})) return dead;
  if (reader.escape && (!p.free_keys || keys_tried(p) || f_[f_place] || p.names_plan != none) && !escape_possible(reader, f_[f_place], states, &place, alive)) return dead;
  if (patterns_.full()) return full_ = true, dead;
  return make({in_key, s[1], reader.escape, reader.utf8, place.low, place.high, place.depth, count, low_of(hash), high_of(hash)}, states);
}

uint32_t SchemaMachine::end_key(View s) {
  const uint32_t own_plan = f_[f_plan];
  const Plan p = plans_[own_plan];
  uint32_t name = none;
  if (s[4] < s[5] && schema_.names[pool_[p.names + s[4]]].size() == s[6]) {
    if (f_[f_seen + s[4] / 32] >> (s[4] % 32) & 1) return dead;  // a second time
    if (is_passed(s[4], p) || !pool_[p.viable + s[4]]) return dead;
    f_[f_seen + s[4] / 32] |= 1u << (s[4] % 32);
    name = pool_[p.names + s[4]];
  } else if ((!p.free_keys || p.names_listed) && !key_possible(0, 0, s.subspan(10))) {
    return dead;
  }
  const View automata = s.subspan(10);
  if (p.closes && !key_holds(name, automata, true)) return dead;
  if (f_[f_place]) f_[f_place] = name == none ? p.n_names + 2 : pool_[p.ranks + s[4]] + 2;
  const uint32_t link = link_of_key(name, automata);
  if (link == none || !startable(links_.at(link)[0])) return dead;
  bool evaluated = std::any_of(mask_.begin(), mask_.end(), [](uint32_t word) { return word != 0; });
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (const uint32_t rest = node(pool_[p.nodes + i]).unevaluated_properties; rest != none) evaluated |= !node(rest).never;
  for (uint32_t i = 0; i < p.n_nodes && !evaluated; ++i) {
    const uint32_t rest = node(pool_[p.nodes + i]).unevaluated_properties;
    if (pool_[p.must + i] && rest != none && node(rest).never) return dead;
  }
  if (p.names_plan != none) {
    count_ = s[7];
    automata_ = automata.subspan(p.n_key_rules);
    if (!judge(p.names_plan, string, true)) return dead;
    for (uint32_t i = 0; i < p.n_nodes; ++i)
      if (const uint32_t names = node(pool_[p.nodes + i]).names; names != none && status_[names] != yes)
        f_[f_seen + p.seen_words() + i / 32] |= 1u << (i % 32);
  }
  f_[f_link] = link;
  f_[f_key] = s[8], f_[f_key + 1] = s[9];
  coming_ = known_child;
  const bool alive = judge(own_plan, object, false);
  coming_ = no_child;
  if (!alive || !bearable(f_[f_parent], own_plan)) return dead;
  const uint32_t id = frames_.add(f_);
  if (id == none) return full_ = true, dead;
  return if_any(make({at_value, id, links_.at(link)[0], 0}), value_begins) == dead ? dead : make({at_colon, id});
}

uint32_t SchemaMachine::on_string(View s, uint8_t byte) {
  const uint32_t plan = s[2];
  const Plan p = plans_[plan];
  StringReader reader{.escape = s[3], .utf8 = s[4]};
  if (reader.escape && compact(s[1]) && !reader.is_needful(byte)) return dead;
  const auto result = reader.take(byte);
  if (result == StringReader::wrong) return dead;
  if (result == StringReader::closes) {
    count_ = s[5];
    automata_ = s.subspan(8);
    hash_ = mix(joined(s[6], s[7]), 3);
    judge(plan, string, true);
    return finish_value(s[1]);
  }
  uint64_t hash = joined(s[6], s[7]);
  if (hashing(s[1]))
    for (uint32_t i = 0; i < reader.n; ++i) hash = mix(hash + 1, reader.bytes[i]);
  if (p.plain_strings) return make({in_string, s[1], plan, reader.escape, reader.utf8, 0, low_of(hash), high_of(hash)});
  Words& states = roots_;
  states.assign(s.begin() + 8, s.end());
  for (uint32_t i = 0; i < reader.n; ++i)
    for (uint32_t& state : states) state = patterns_.next(state, reader.bytes[i]);
  if (patterns_.full()) return full_ = true, dead;
  const uint32_t count = std::min(s[5] + reader.character, p.length_cap);
  const uint32_t begun = count + (reader.escape || reader.utf8);  // with the one that is
  if (reader.escape && !states.empty()) {
    const auto alive = [&](const KeyPlace&, View tried, auto bytes) {
      uint64_t h = hash;
      for (const auto c : bytes) h = hashing(s[1]) ? mix(h + 1, static_cast<uint8_t>(c)) : h;
      count_ = begun;
      automata_ = tried;
      return judge(plan, string, false) && bearable(s[1], plan) && string_possible(s[1], plan, tried, begun, h);
    };
    if (!escape_possible(reader, compact(s[1]), states, nullptr, alive)) return dead;
  }
  if (patterns_.full()) return full_ = true, dead;
  count_ = begun;
  automata_ = states;
  if (!judge(plan, string, false) || !bearable(s[1], plan)) return dead;
  return string_state({in_string, s[1], plan, reader.escape, reader.utf8, count, low_of(hash), high_of(hash)}, states);
}

}  // namespace gptq::text::constraint
