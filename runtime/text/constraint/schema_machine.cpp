// SPDX-License-Identifier: Apache-2.0
// The bytes of JSON, the containers in progress, and what happens where a value ends.
#include "text/constraint/schema_machine.h"

#include <algorithm>
#include <cstring>

#include "base/failure.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t n_states = 16'000, frames_max = 16'000, plans_max = 4'000, links_max = 16'000, words_max = 1 << 19;
constexpr uint32_t pool_max = 1 << 18, list_max = 1 << 14, top = 0;

bool is_space(uint8_t byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }
uint64_t mix(uint64_t hash, uint64_t next) {
  hash = (hash ^ next) * 0xD6E8FEB86659FD93u;
  return hash ^ hash >> 29;
}
uint64_t joined(uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; }
uint32_t low_of(uint64_t hash) { return static_cast<uint32_t>(hash); }
uint32_t high_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32); }

bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }
constexpr std::string_view literals[] = {"null", "false", "true"};

}  // namespace

SchemaMachine::SchemaMachine(std::string_view source, std::pmr::memory_resource* memory)
    : Machine(n_states, memory),
      schema_(source, memory),
      has_patterns_(!schema_.patterns.rules.empty()),
      patterns_(std::move(schema_.patterns), {.states = has_patterns_ ? 8000u : 2u, .words = has_patterns_ ? words_max : 16}, memory),
      states_(n_states, words_max, memory),
      frames_(frames_max, words_max, memory),
      plan_ids_(plans_max, words_max / 4, memory),
      links_(links_max, words_max, memory),
      plans_(memory), pool_(memory), f_(memory), key_(memory), roots_(memory), pairs_(memory), mask_(memory), order_(memory), contributing_(memory), tried_(memory),
      status_(schema_.nodes.size(), 0, memory), marked_(schema_.nodes.size(), 0, memory), position_(schema_.nodes.size(), 0, memory) {
  plans_.reserve(plans_max);
  pool_.reserve(pool_max);
  const size_t lists = std::max<size_t>(list_max, 2 * schema_.nodes.size() + schema_.names.size() + 16);
  for (Words* words : {&f_, &key_, &roots_, &pairs_, &mask_, &order_, &contributing_, &tried_}) words->reserve(lists);
  clear();
}

void SchemaMachine::clear() {
  Machine::clear();
  patterns_.clear();
  states_.clear();
  frames_.clear();
  plan_ids_.clear();
  links_.clear();
  plans_.clear();
  pool_.clear();
  with_row(states_.add({}));
  frames_.add({});  // the top: around the whole text
}

uint32_t SchemaMachine::make(std::initializer_list<uint32_t> head, View rest) {
  if (full_ || patterns_.full()) return full_ = true, dead;
  key_.assign(head);
  if (key_.size() + rest.size() > key_.capacity()) return full_ = true, dead;
  key_.insert(key_.end(), rest.begin(), rest.end());
  return with_row(states_.add(key_));
}

uint32_t SchemaMachine::start() {
  roots_.assign(1, 1);  // node 0, which must hold
  const uint32_t plan = plan_of(roots_);
  return plan == none ? dead : make({at_value, top, plan, 0});
}

bool SchemaMachine::accepting(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty()) return false;
  if (s[0] == at_end) return true;
  if (s[0] != in_number || s[1] != top) return false;
  const uint32_t phase = s[3] & 15;
  if (phase != 1 && phase != 2 && phase != 4 && phase != 7) return false;
  phase_ = s[3];
  text_size_ = static_cast<uint32_t>((s.size() - 4) * 4);
  if (text_size_) std::memcpy(text_, &s[4], text_size_);
  while (text_size_ && !text_[text_size_ - 1]) --text_size_;
  return judge(s[2], number, true);
}

uint32_t SchemaMachine::find(uint32_t state, uint8_t byte) {
  const View s = states_.at(state);
  switch (s[0]) {
    case at_value:
      if (is_space(byte)) return s[1] == top ? dead : state;
      if (byte == ']' && s[3]) return close_container(s[1]);
      return begin_value(s[1], s[2], byte);
    case in_string: return on_string(s, byte);
    case in_number: return on_number(s, byte);
    case in_literal: {
      const std::string_view text = literals[s[3]];
      if (static_cast<uint8_t>(text[s[4]]) != byte) return dead;
      if (s[4] + 1 < text.size()) return make({in_literal, s[1], s[2], s[3], s[4] + 1});
      literal_ = 1u << s[3];
      hash_ = mix(1, s[3]);
      judge(s[2], literal, true);
      return finish_value(s[1], s[2]);
    }
    case at_first_key:
      if (byte == '}') return close_container(s[1]);
      [[fallthrough]];
    case at_key:
      if (is_space(byte)) return state;
      return byte == '"' ? begin_key(s[1]) : dead;
    case in_key: return on_key(s, byte);
    case at_colon: {
      if (is_space(byte)) return state;
      if (byte != ':') return dead;
      const uint32_t frame = s[1];
      return make({at_value, frame, plan_of_value(frame), 0});
    }
    case after_value: return on_after(s, byte);
    default: return dead;
  }
}

void SchemaMachine::load(uint32_t frame) {
  const View words = frames_.at(frame);
  f_.assign(words.begin(), words.end());
}

uint32_t SchemaMachine::plan_of_value(uint32_t frame) { return links_.at(frames_.at(frame)[f_link])[0]; }

// Whether any value may come.
bool SchemaMachine::startable(uint32_t plan) {
  const Plan& p = plans_[plan];
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (pool_[p.must + i] && node(pool_[p.nodes + i]).never) return false;
  return true;
}

uint32_t SchemaMachine::begin_value(uint32_t frame, uint32_t plan, uint8_t byte) {
  const Plan p = plans_[plan];
  if (byte == '{') return open_container(frame, plan, object);
  if (byte == '[') return open_container(frame, plan, array);
  if (byte == '"') {
    count_ = 0;
    Words& states = roots_;
    states.clear();
    for (const uint32_t rule : list(p.rules, p.n_rules)) states.push_back(patterns_.start_of(rule));
    automata_ = states;
    return judge(plan, string, false) ? make({in_string, frame, plan, 0, 0, 0, 0, 0}, states) : dead;
  }
  if (byte == '-' || is_digit(byte)) {
    phase_ = byte == '-' ? 0 : byte == '0' ? 1 : 2;
    text_[0] = static_cast<char>(byte);
    text_size_ = 1;
    if (!judge(plan, number, false)) return dead;
    const uint32_t text = byte;
    return p.number_text || hashing(frame) ? make({in_number, frame, plan, phase_}, {&text, 1}) : make({in_number, frame, plan, phase_});
  }
  for (uint32_t i = 0; i < 3; ++i)
    if (byte == static_cast<uint8_t>(literals[i][0])) {
      literal_ = 1u << i;
      return judge(plan, literal, true) ? make({in_literal, frame, plan, i, 1}) : dead;
    }
  return dead;
}

uint32_t SchemaMachine::open_container(uint32_t frame, uint32_t plan, What what) {
  const Plan p = plans_[plan];
  f_.assign({frame, plan, none, what == array ? 1u : 0u, hashing(frame) || (p.unique && what == array)});
  f_.resize(f_seen + p.seen_words() + p.node_words() + p.n_contains, 0);
  if (!judge(plan, what, false)) return dead;
  if (what == array) return next_item(none, true);
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : make({at_first_key, id});
}

// f_ is an array that another item may follow in.
uint32_t SchemaMachine::next_item(uint32_t, bool may_close) {
  const uint32_t link = link_of_item();
  if (link == none) return dead;
  f_[f_link] = link;
  const uint32_t plan = links_.at(link)[0];
  if (!startable(plan) && !may_close) return dead;
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : make({at_value, id, plan, may_close});
}

uint32_t SchemaMachine::close_container(uint32_t frame) {
  load(frame);
  const uint32_t parent = f_[f_parent], plan = f_[f_plan];
  hash_ = mix(joined(f_[f_hash], f_[f_hash + 1]), 5 + (f_[f_count] & 1));
  judge(plan, f_[f_count] & 1 ? array : object, true);
  return finish_value(parent, plan);
}

// status_ has what the plan's nodes say of the whole value; its container takes note.
uint32_t SchemaMachine::finish_value(uint32_t frame, uint32_t) {
  if (full_) return dead;
  if (frame == top) return status_[0] == yes ? make({at_end, top}) : dead;
  load(frame);
  const uint32_t own_plan = f_[f_plan];
  const Plan p = plans_[own_plan];
  const View link = links_.at(f_[f_link]);
  const uint32_t words = p.node_words(), fails = f_seen + p.seen_words(), counts = fails + words;
  const View mask = link.subspan(2 + 2 * link[1]);
  mask_.assign(mask.begin(), mask.end());
  contributing_.assign(words, 0);  // here: whose unevaluated schemas the value fulfils
  for (uint32_t i = 0; i < link[1]; ++i) {
    const uint32_t position = link[2 + 2 * i] >> 2, use = link[2 + 2 * i] & 3, bit = 1u << (position % 32);
    const bool holds = status_[link[3 + 2 * i] >> 1] == yes;
    if (use == applies && !holds) f_[fails + position / 32] |= bit;
    if (use == unevaluated && holds) contributing_[position / 32] |= bit;
    if (use == contains && holds) {
      uint32_t at = counts;
      for (uint32_t k = 0; k < position; ++k) at += node(pool_[p.nodes + k]).contains != none;
      const SchemaNode& n = node(pool_[p.nodes + position]);
      f_[at] = std::min(f_[at] + 1, std::max(n.min_contains, n.max_contains == none ? 0 : n.max_contains + 1));
      mask_[position / 32] |= bit;
    }
  }
  if (p.unevaluated) {
    const size_t begin = counts + p.n_contains;
    const auto end = f_.end() - 2 * static_cast<ptrdiff_t>(f_[f_hashes]);
    bool known = false;
    for (size_t at = begin; at < static_cast<size_t>(end - f_.begin()) && !known; at += 2 * words)
      known = std::equal(mask_.begin(), mask_.end(), f_.begin() + static_cast<ptrdiff_t>(at)) &&
              std::equal(contributing_.begin(), contributing_.end(), f_.begin() + static_cast<ptrdiff_t>(at + words));
    if (!known) {
      if (f_.size() + 2 * words > f_.capacity()) return full_ = true, dead;
      contributing_.insert(contributing_.begin(), mask_.begin(), mask_.end());
      f_.insert(end, contributing_.begin(), contributing_.end());
    }
  }
  if (f_[f_hashing] && !note_hash(p)) return full_ = true, dead;
  f_[f_link] = none;
  const bool is_array = f_[f_count] & 1;
  f_[f_count] = std::min((f_[f_count] >> 1) + 1, p.count_cap) << 1 | is_array;
  if (!judge(own_plan, is_array ? array : object, false)) return dead;
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : make({after_value, id});
}

// Of objects the order does not count. An item that was there before fails those that want unique ones.
bool SchemaMachine::note_hash(const Plan& p) {
  const uint64_t before = joined(f_[f_hash], f_[f_hash + 1]);
  const bool is_array = f_[f_count] & 1;
  const uint64_t after = is_array ? mix(before + 1, hash_) : before + mix(joined(f_[f_key], f_[f_key + 1]), hash_);
  f_[f_hash] = low_of(after), f_[f_hash + 1] = high_of(after);
  f_[f_key] = f_[f_key + 1] = 0;
  if (!is_array || !p.unique) return true;
  bool known = false;
  for (size_t at = f_.size() - 2 * f_[f_hashes]; at < f_.size(); at += 2) known |= joined(f_[at], f_[at + 1]) == hash_;
  for (uint32_t i = 0; i < p.n_nodes && known; ++i)
    if (node(pool_[p.nodes + i]).unique) f_[f_seen + p.seen_words() + i / 32] |= 1u << (i % 32);
  if (known) return true;
  if (f_.size() + 2 > f_.capacity()) return false;
  f_.push_back(low_of(hash_));
  f_.push_back(high_of(hash_));
  ++f_[f_hashes];
  return true;
}

uint32_t SchemaMachine::on_after(View s, uint8_t byte) {
  const uint32_t frame = s[1];
  if (is_space(byte)) return make({after_value, frame});
  load(frame);
  const bool is_array = f_[f_count] & 1;
  if (byte == (is_array ? ']' : '}')) return close_container(frame);
  if (byte != ',') return dead;
  const Plan& p = plans_[f_[f_plan]];
  const uint32_t count = f_[f_count] >> 1;
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const uint32_t most = is_array ? node(pool_[p.nodes + i]).max_items : node(pool_[p.nodes + i]).max_properties;
    if (pool_[p.must + i] && most != none && count >= most) return dead;
  }
  if (is_array) return next_item(frame, false);
  return begin_key(frame) == dead ? dead : make({at_key, frame});
}

// Whether a key may go on as one of these names, or as one that no list has.
bool SchemaMachine::key_possible(uint32_t low, uint32_t high, uint32_t, View automata) {
  const Plan& p = plans_[f_[f_plan]];
  for (uint32_t i = low; i < high; ++i)
    if (pool_[p.viable + i] && !(f_[f_seen + i / 32] >> (i % 32) & 1)) return true;
  if (p.free_keys) return true;
  // Of each that must hold and is closed, some pattern is still possible.
  const View rules = list(p.key_rules, p.n_key_rules);
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const bool closed = (n.additional != none && node(n.additional).never) || (n.unevaluated_properties != none && node(n.unevaluated_properties).never);
    if (!pool_[p.must + i] || !closed) continue;
    bool possible = false;
    const bool own_alone = n.additional != none && node(n.additional).never;
    for (uint32_t k = own_alone ? i : 0; k < (own_alone ? i + 1 : p.n_nodes); ++k) {
      const SchemaNode& other = node(pool_[p.nodes + k]);
      possible |= !own_alone && other.additional != none && !node(other.additional).never;
      possible |= !own_alone && other.unevaluated_properties != none && !node(other.unevaluated_properties).never;
      for (const auto& [rule, child] : other.patterns)
        possible |= automata[static_cast<size_t>(std::lower_bound(rules.begin(), rules.end(), rule) - rules.begin())] != dead;
    }
    if (!possible) return false;
  }
  return true;
}

uint32_t SchemaMachine::begin_key(uint32_t frame) {
  load(frame);
  const Plan p = plans_[f_[f_plan]];
  Words& states = roots_;
  states.clear();
  for (const uint32_t rule : list(p.key_rules, p.n_key_rules)) states.push_back(patterns_.start_of(rule));
  if (p.names_plan != none) {
    const Plan q = plans_[p.names_plan];
    for (const uint32_t rule : list(q.rules, q.n_rules)) states.push_back(patterns_.start_of(rule));
  }
  if (full_ || patterns_.full()) return full_ = true, dead;
  const uint32_t count = f_[f_count] >> 1;
  for (uint32_t i = 0; i < p.n_nodes; ++i)
    if (const uint32_t most = node(pool_[p.nodes + i]).max_properties; pool_[p.must + i] && most != none && count >= most) return dead;
  if (!key_possible(0, p.n_names, 0, states)) return dead;
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
bool SchemaMachine::escape_possible(const Reader& reader, View states, const KeyPlace& place, Alive&& alive) {
  auto [code, last] = reader.range();
  for (unsigned tries = 0; code <= last && tries < 2000; ++tries) {
    Reader one{};
    one.put(code);
    tried_.assign(states.begin(), states.end());
    KeyPlace at = place;
    uint32_t taken = 0;
    bool lives = true;
    for (; taken < one.n && lives; ++taken) {
      if (at.low < at.high) advance_key(at, one.bytes[taken], plans_[f_[f_plan]]);
      for (uint32_t& state : tried_) state = patterns_.next(state, one.bytes[taken]);
      lives = alive(at, View(tried_));
    }
    if (lives) return true;
    const uint32_t width = 6 * (one.n - taken);
    code = ((code >> width) + 1) << width;
  }
  return code <= last;
}

std::pair<uint32_t, uint32_t> SchemaMachine::Reader::range() const {
  const uint32_t state = escape & 0xFF, value = escape >> 8;
  if (state < 2) return {0, code_point_max};
  if (state <= 5) {
    const uint32_t open = 4 * (6 - state), low = value << open, high = low + (1u << open) - 1;
    return {low, low <= 0xDBFF && high >= 0xD800 ? code_point_max : high};  // half a pair may stand for any beyond
  }
  const uint32_t half = state <= 8 ? value : value >> (4 * (state - 8));
  return {0x10000 + (half << 10), 0x10000 + (half << 10) + 0x3FF};
}

uint32_t SchemaMachine::on_key(View s, uint8_t byte) {
  load(s[1]);
  const Plan p = plans_[f_[f_plan]];
  Reader reader{.escape = s[2], .utf8 = s[3]};
  const auto result = reader.take(byte);
  if (result == Reader::wrong) return dead;
  if (result == Reader::closes) return end_key(s);
  KeyPlace place{s[4], s[5], s[6]};
  uint32_t count = s[7];
  Words& states = roots_;
  states.assign(s.begin() + 10, s.end());
  uint64_t hash = joined(s[8], s[9]);
  for (uint32_t i = 0; i < reader.n; ++i) {
    const uint8_t c = reader.bytes[i];
    advance_key(place, c, p);
    if (f_[f_hashing]) hash = mix(hash + 1, c);
    for (uint32_t& state : states) state = patterns_.next(state, c);
  }
  if (!key_possible(place.low, place.high, place.depth, states)) return dead;
  if (reader.escape && !p.free_keys &&
      !escape_possible(reader, states, place, [&](const KeyPlace& at, View tried) { return key_possible(at.low, at.high, at.depth, tried); }))
    return dead;
  if (patterns_.full()) return full_ = true, dead;
  if (p.names_plan != none) {
    const Plan& q = plans_[p.names_plan];
    count = std::min(count + reader.character, q.length_cap);
    count_ = count;
    automata_ = View(states).subspan(p.n_key_rules);
    if (!judge(p.names_plan, string, false)) return dead;
  }
  return make({in_key, s[1], reader.escape, reader.utf8, place.low, place.high, place.depth, count, low_of(hash), high_of(hash)}, states);
}

uint32_t SchemaMachine::end_key(View s) {
  const Plan p = plans_[f_[f_plan]];
  uint32_t name = none;
  if (s[4] < s[5] && schema_.names[pool_[p.names + s[4]]].size() == s[6]) {
    if (f_[f_seen + s[4] / 32] >> (s[4] % 32) & 1) return dead;  // a second time
    f_[f_seen + s[4] / 32] |= 1u << (s[4] % 32);
    name = pool_[p.names + s[4]];
    if (!pool_[p.viable + s[4]]) return dead;
  } else if (!p.free_keys && !key_possible(0, 0, 0, s.subspan(10))) {
    return dead;
  }
  const View automata = s.subspan(10);
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
      if (const uint32_t names = node(pool_[p.nodes + i]).names; names != none && status_[names] != yes) f_[f_seen + p.seen_words() + i / 32] |= 1u << (i % 32);
  }
  f_[f_link] = link;
  f_[f_key] = s[8], f_[f_key + 1] = s[9];
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : make({at_colon, id});
}

uint32_t SchemaMachine::on_string(View s, uint8_t byte) {
  const uint32_t plan = s[2];
  const Plan p = plans_[plan];
  Reader reader{.escape = s[3], .utf8 = s[4]};
  const auto result = reader.take(byte);
  if (result == Reader::wrong) return dead;
  if (result == Reader::closes) {
    count_ = s[5];
    automata_ = s.subspan(8);
    hash_ = mix(joined(s[6], s[7]), 3);
    judge(plan, string, true);
    return finish_value(s[1], plan);
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
  count_ = count + (reader.escape || reader.utf8);  // with the one that is begun
  if (reader.escape && !states.empty()) {
    const auto alive = [&](const KeyPlace&, View tried) {
      automata_ = tried;
      return judge(plan, string, false);
    };
    if (!escape_possible(reader, states, {}, alive)) return dead;
  }
  if (patterns_.full()) return full_ = true, dead;
  automata_ = states;
  return judge(plan, string, false) ? make({in_string, s[1], plan, reader.escape, reader.utf8, count, low_of(hash), high_of(hash)}, states) : dead;
}

uint32_t SchemaMachine::on_number(View s, uint8_t byte) {
  const uint32_t plan = s[2], phase = s[3] & 15;
  const bool free = s[3] & 64, ends = phase == 1 || phase == 2 || phase == 4 || phase == 7;
  phase_ = s[3];
  text_size_ = static_cast<uint32_t>((s.size() - 4) * 4);
  if (text_size_) std::memcpy(text_, &s[4], text_size_);
  while (text_size_ && !text_[text_size_ - 1]) --text_size_;
  uint32_t next = 99;
  if (is_digit(byte)) {
    constexpr uint32_t after[] = {2, 99, 2, 4, 4, 7, 7, 7};
    next = phase == 0 && byte == '0' ? 1 : after[phase];
  } else if (byte == '.' && (phase == 1 || phase == 2)) {
    next = 3;
  } else if ((byte == 'e' || byte == 'E') && ends && phase != 7 && !free) {
    next = 5;
  } else if ((byte == '+' || byte == '-') && phase == 5) {
    next = 6;
  } else {
    if (!ends || s[1] == top) return dead;
    if (hashing(s[1])) {
      const Decimal d = Decimal::of(std::string_view(text_, text_size_));
      hash_ = mix(mix(mix(4, static_cast<uint64_t>(d.digits)), static_cast<uint64_t>(d.digits >> 64)), static_cast<uint64_t>(d.exponent));
    }
    judge(plan, number, true);
    const uint32_t state = finish_value(s[1], plan);
    return state == dead ? dead : find(state, byte);
  }
  if (next == 99) return dead;
  phase_ = (phase_ & ~15u) | next;
  if (next == 4 && byte != '0') phase_ |= 16;
  if (next == 6 && byte == '-') phase_ |= 32;
  const Plan& p = plans_[plan];
  const bool hashed = hashing(s[1]);
  if ((!p.number_text && !hashed) || free) return judge(plan, number, false) ? make({in_number, s[1], plan, phase_}) : dead;
  if (text_size_ == 40) return dead;
  text_[text_size_++] = static_cast<char>(byte);
  if (!judge(plan, number, false)) return dead;
  bool certain = !hashed && (next == 1 || next == 2 || next == 4);
  for (uint32_t i = 0; i < p.n_nodes && certain; ++i) certain = number_certain(node(pool_[p.nodes + i]));
  if (certain) return make({in_number, s[1], plan, phase_ | 64});
  uint32_t words[11] = {};
  std::memcpy(words, text_, text_size_);
  return make({in_number, s[1], plan, phase_}, View(words, (text_size_ + 3) / 4));
}

SchemaMachine::Reader::Result SchemaMachine::Reader::hex(uint8_t byte) {
  const uint8_t lower = byte | 0x20;
  const uint32_t digit = is_digit(byte) ? byte - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10u : 99;
  if (digit == 99) return wrong;
  const uint32_t state = escape & 0xFF, value = (escape >> 8) << 4 | digit;
  if (state != 5 && state != 11) {
    escape = (state + 1) | value << 8;
    return goes_on;
  }
  escape = 0;
  if (state == 5) {
    if (value >= 0xDC00 && value <= 0xDFFF) return wrong;
    if (value >= 0xD800 && value <= 0xDBFF) escape = 6 | (value - 0xD800) << 8;
    else put(value);
    return goes_on;
  }
  // The high half's 10 bits are above the low one's 16.
  const uint32_t low = value & 0xFFFF, high = value >> 16;
  if (low < 0xDC00 || low > 0xDFFF) return wrong;
  put(0x10000 + (high << 10) + (low - 0xDC00));
  return goes_on;
}

void SchemaMachine::Reader::put(uint32_t code) {
  character = true;
  if (code < 0x80) {
    bytes[n++] = static_cast<uint8_t>(code);
    return;
  }
  const unsigned tails = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
  bytes[n++] = static_cast<uint8_t>(lead[tails] | code >> (6 * tails));
  for (unsigned i = tails; i-- > 0;) bytes[n++] = static_cast<uint8_t>(0x80 | (code >> (6 * i) & 0x3F));
}

// escape: 1 behind a backslash, 2 to 5 a code's digits, 6 a backslash wanted, 7 its u, 8 to 11 the second code's digits; from bit 8 what they
// gave. utf8: 1 to 3 bytes wanted, 4 to 7 after E0, ED, F0, F4.
SchemaMachine::Reader::Result SchemaMachine::Reader::take(uint8_t byte) {
  if (const uint32_t state = escape & 0xFF) {
    if (state == 1) {
      escape = byte == 'u' ? 2 : 0;
      constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const size_t which = from.find(static_cast<char>(byte));
      if (byte != 'u' && which == std::string_view::npos) return wrong;
      if (byte != 'u') put(static_cast<uint8_t>(to[which]));
      return goes_on;
    }
    if (state == 6 || state == 7) {
      if (byte != (state == 6 ? '\\' : 'u')) return wrong;
      ++escape;
      return goes_on;
    }
    return hex(byte);
  }
  bytes[n++] = byte;
  if (utf8) {
    const bool fits = utf8 == 4 ? byte >= 0xA0 && byte <= 0xBF : utf8 == 5 ? byte >= 0x80 && byte <= 0x9F : utf8 == 6 ? byte >= 0x90 && byte <= 0xBF
                    : utf8 == 7 ? byte >= 0x80 && byte <= 0x8F : byte >= 0x80 && byte <= 0xBF;
    if (!fits) return wrong;
    utf8 = utf8 <= 3 ? utf8 - 1 : utf8 <= 5 ? 1 : 2;
    character = utf8 == 0;
    return goes_on;
  }
  if (byte < 0x20) return wrong;
  if (byte == '"') return closes;
  if (byte == '\\') {
    n = 0;
    escape = 1;
    return goes_on;
  }
  if (byte < 0x80) {
    character = true;
    return goes_on;
  }
  if (byte < 0xC2 || byte > 0xF4) return wrong;
  utf8 = byte < 0xE0 ? 1 : byte == 0xE0 ? 4 : byte == 0xED ? 5 : byte < 0xF0 ? 2 : byte == 0xF0 ? 6 : byte == 0xF4 ? 7 : 3;
  return goes_on;
}

}  // namespace gptq::text::constraint
