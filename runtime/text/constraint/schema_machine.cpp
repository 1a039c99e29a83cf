// SPDX-License-Identifier: Apache-2.0
// The bytes of JSON, the containers in progress, and what happens where a value ends.
#include "text/constraint/schema_machine.h"

#include <algorithm>
#include <cstring>

#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {
namespace {

bool is_space(uint8_t byte) { return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; }
bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }
// Of values that begin with it.
uint8_t types_of(uint8_t byte) {
  switch (byte) {
    case '{': return type_object;
    case '[': return type_array;
    case '"': return type_string;
    case 'n': return type_null;
    case 't': case 'f': return type_boolean;
    default: return byte == '-' || is_digit(byte) ? type_integer | type_number : 0;
  }
}
}  // namespace

uint32_t SchemaMachine::make(std::initializer_list<uint32_t> head, View rest) {
  if (full_ || patterns_.full()) return full_ = true, dead;
  key_.assign(head);
  if (key_.size() + rest.size() > key_.capacity()) return full_ = true, dead;
  key_.insert(key_.end(), rest.begin(), rest.end());
  return with_row(states_.add(key_));
}

uint32_t SchemaMachine::start_of(uint32_t document) {
  roots_.assign(1, schema_.roots[document].node << 1 | 1);  // which must hold
  const uint32_t plan = plan_of(roots_);
  if (plan == none) return dead;
  // Two steps ahead.
  const uint32_t state = make({at_value, document, plan, 0});
  return state == dead || std::ranges::any_of(value_begins, [&](char byte) { return find(state, static_cast<uint8_t>(byte)) != dead; }) ? state : dead;
}

bool SchemaMachine::accepting(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty()) return false;
  if (s[0] == at_end) return true;
  if (s[0] != in_number || !is_top(s[1])) return false;
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
      if (is_space(byte)) return takes_space(s[1]) ? state : dead;
      if (byte == ']' && s[3]) return close_container(s[1]);
      if (s[3] == 2) return dead;
      return begin_value(s[1], s[2], byte);
    case in_string: return on_string(s, byte);
    case in_number: return on_number(s, byte);
    case in_literal: {
      const std::string_view text = literals[s[3]];
      if (static_cast<uint8_t>(text[s[4]]) != byte) return dead;
      if (s[4] + 1 < text.size()) return make({in_literal, s[1], s[2], s[3], s[4] + 1});
      literal_ = 1u << s[3];
      hash_ = literal_hash(s[3]);
      judge(s[2], literal, true);
      return finish_value(s[1]);
    }
    case at_first_key:
      if (byte == '}') return close_container(s[1]);
      [[fallthrough]];
    case at_key:
      if (is_space(byte)) return takes_space(s[1]) ? state : dead;
      return byte == '"' ? begin_key(s[1]) : dead;
    case in_key: return on_key(s, byte);
    case loose_string: return on_loose(s, byte);
    case at_colon: {
      const uint32_t frame = s[1];
      if (is_space(byte)) return takes_space(frame) ? state : dead;
      if (byte != ':') return dead;
      return make({at_value, frame, plan_of_value(frame), 0});
    }
    case after_value: return on_after(s, byte);
    default: return dead;
  }
}

void SchemaMachine::load(uint32_t frame) {
  const View words = frames_.at(frame);
  f_.assign(words.begin(), words.end());
  loaded_ = frame;
}

uint32_t SchemaMachine::plan_of_value(uint32_t frame) { return links_.at(frames_.at(frame)[f_link])[0]; }

// Whether any value may come.
bool SchemaMachine::startable(uint32_t plan) { return plans_[plan].types != 0 && (!plans_[plan].suspect || fulfillable(plan)); }

uint32_t SchemaMachine::begin_value(uint32_t frame, uint32_t plan, uint8_t byte) {
  const Plan p = plans_[plan];
  if (!(p.types & types_of(byte)) || !takes_child(frame)) return dead;
  if (byte == '{') return open_container(frame, plan, object);
  if (byte == '[') return open_container(frame, plan, array);
  if (byte == '"') {
    count_ = 0;
    Words& states = roots_;
    states.clear();
    for (const uint32_t rule : list(p.rules, p.n_rules)) states.push_back(patterns_.start_of(rule));
    automata_ = states;
    if (!judge(plan, string, false) || !bearable(frame, plan)) return dead;
    return string_state({in_string, frame, plan, 0, 0, 0, 0, 0}, states);
  }
  if (byte == '-' || is_digit(byte)) {
    phase_ = byte == '-' ? 0 : byte == '0' ? 1 : 2;
    text_[0] = static_cast<char>(byte);
    text_size_ = 1;
    taken_ = taken_in(frame);
    if (!judge(plan, number, false) || !bearable(frame, plan)) return dead;
    const uint32_t text = byte;
    return p.number_text || within_unique(frame) ? make({in_number, frame, plan, phase_}, {&text, 1}) : make({in_number, frame, plan, phase_});
  }
  for (uint32_t i = 0; i < 3; ++i)
    if (byte == static_cast<uint8_t>(literals[i][0])) {
      literal_ = 1u << i;
      return !is_taken(literal_hash(i), taken_in(frame)) && judge(plan, literal, true) && bearable(frame, plan) ? make({in_literal, frame, plan, i, 1}) : dead;
    }
  return dead;
}

uint32_t SchemaMachine::open_container(uint32_t frame, uint32_t plan, What what) {
  const Plan p = plans_[plan];
  const uint32_t hashes = p.unique && what == array ? 1 : is_top(frame) ? 0 : frames_.at(frame)[f_hashing];
  f_.assign({frame, plan, none, what == array ? 1u : 0u, hashes, compact(frame)});
  f_.resize(f_seen + p.seen_words() + p.node_words() + p.n_contains, 0);
  if (!judge(plan, what, false) || !bearable(frame, plan)) return dead;
  if (what == array) return if_any(next_item(true), "]\"0123456789-tfn{[");
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : if_any(make({at_first_key, id}), "}\"");
}

// f_ is an array that another item may follow in.
uint32_t SchemaMachine::next_item(bool may_close) {
  const uint32_t link = link_of_item();
  if (link == none) return dead;
  const Plan& own = plans_[f_[f_plan]];
  bool evaluated = own.n_contains || std::any_of(mask_.begin(), mask_.end(), [](uint32_t word) { return word != 0; });
  for (uint32_t i = 0; i < own.n_nodes; ++i)
    if (const uint32_t rest = node(pool_[own.nodes + i]).unevaluated_items; rest != none) evaluated |= !node(rest).never;
  bool none_may = false;
  for (uint32_t i = 0; i < own.n_nodes && !evaluated; ++i) {
    const uint32_t rest = node(pool_[own.nodes + i]).unevaluated_items;
    none_may |= pool_[own.must + i] && rest != none && node(rest).never;
  }
  f_[f_link] = link;
  const uint32_t plan = links_.at(link)[0];
  none_may |= !startable(plan);
  if (none_may && !may_close) return dead;
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : make({at_value, id, plan, none_may ? 2u : may_close});
}

uint32_t SchemaMachine::close_container(uint32_t frame) {
  load(frame);
  const uint32_t parent = f_[f_parent], plan = f_[f_plan];
  hash_ = mix(joined(f_[f_hash], f_[f_hash + 1]), 5 + (f_[f_count] & 1));
  const bool holds = judge(plan, f_[f_count] & 1 ? array : object, true);
  if (trials_ && is_top(parent)) return holds ? make({at_end, parent}) : dead;
  return finish_value(parent, f_[f_hashing] != 2);
}

// status_ has what the plan's nodes say of the whole value; its container takes note.
uint32_t SchemaMachine::finish_value(uint32_t frame, bool hash_known) {
  if (full_) return dead;
  if (is_top(frame)) return status_[schema_.roots[frame].node] == yes ? make({at_end, frame}) : dead;
  load(frame);
  if (!hash_known && f_[f_hashing] == 1) return doubt;
  const uint32_t own_plan = f_[f_plan];
  const Plan p = plans_[own_plan];
  const View link = links_.at(f_[f_link]);
  const uint32_t words = p.node_words(), fails = f_seen + p.seen_words(), counts = fails + words;
  const View mask = link.subspan(2 + 2 * link[1]);
  const bool alone = unevaluated_fails(link);
  mask_.assign(mask.begin(), mask.end());
  contributing_.assign(words, 0);  // here: whose unevaluated schemas the value fulfils
  for (uint32_t i = 0; i < link[1]; ++i) {
    const uint32_t position = link[2 + 2 * i] >> 2, use = link[2 + 2 * i] & 3, bit = 1u << (position % 32);
    const bool holds = status_[link[3 + 2 * i] >> 1] == yes;
    if ((use == applies || (use == unevaluated && alone)) && !holds) f_[fails + position / 32] |= bit;
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
  if (f_[f_hashing] == 1 && !note_hash(p)) return full_ = true, dead;
  f_[f_link] = none;
  const bool is_array = f_[f_count] & 1;
  f_[f_count] = std::min((f_[f_count] >> 1) + 1, p.count_cap) << 1 | is_array;
  if (!judge(own_plan, is_array ? array : object, false) || !bearable(f_[f_parent], own_plan)) return dead;
  const uint32_t id = frames_.add(f_);
  return id == none ? (full_ = true, dead) : if_any(make({after_value, id}), is_array ? "],": "},");
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
  if (is_space(byte)) return takes_space(frame) ? make({after_value, frame}) : dead;
  load(frame);
  const bool is_array = f_[f_count] & 1;
  if (byte == (is_array ? ']' : '}')) return close_container(frame);
  if (byte != ',') return dead;
  if (is_array) return if_any(next_item(false), value_begins);
  return begin_key(frame) == dead ? dead : make({at_key, frame});
}

// Whether a bound is above 0, where numbers that are small enough are out of bounds.
bool SchemaMachine::bounded_away(uint32_t plan) const {
  const Plan& p = plans_[plan];
  return std::ranges::any_of(list(p.nodes, p.n_nodes), [&](uint32_t at) {
    const SchemaNode& n = node(at);
    return (n.least && n.least->digits > 0) || (n.above && n.above->digits > 0);
  });
}

uint32_t SchemaMachine::on_number(View s, uint8_t byte) {
  const uint32_t plan = s[2], phase = s[3] & 15;
  taken_ = taken_in(s[1]);
  const bool whole = !(plans_[plan].types & type_number) && compact(s[1]);  // only digits
  const bool free = s[3] & 64, ends = phase == 1 || phase == 2 || phase == 4 || phase == 7;
  phase_ = s[3];
  text_size_ = static_cast<uint32_t>((s.size() - 4) * 4);
  if (text_size_) std::memcpy(text_, &s[4], text_size_);
  while (text_size_ && !text_[text_size_ - 1]) --text_size_;
  uint32_t next = 99;
  if (is_digit(byte)) {
    constexpr uint32_t after[] = {2, 99, 2, 4, 4, 7, 7, 7};
    next = phase == 0 && byte == '0' ? 1 : after[phase];
  } else if (byte == '.' && (phase == 1 || phase == 2) && !whole) {
    next = 3;
  } else if ((byte == 'e' || byte == 'E') && ends && phase != 7 && !whole && !(free && plans_[plan].narrow_numbers) && !within_unique(s[1])) {
    next = 5;
  } else if ((byte == '+' || (byte == '-' && !(free && bounded_away(plan)))) && phase == 5) {
    next = 6;
  } else {
    if (!ends || is_top(s[1])) return dead;
    if (hashing(s[1])) hash_ = hash_of(Decimal::of(std::string_view(text_, text_size_)));
    judge(plan, number, true);
    const uint32_t state = finish_value(s[1]);
    return state == dead || state == doubt ? state : find(state, byte);
  }
  if (next == 99) return dead;
  phase_ = (phase_ & ~15u) | next;
  if (next == 4 && byte != '0') phase_ |= 16;
  if (next == 6 && byte == '-') phase_ |= 32;
  const Plan& p = plans_[plan];
  const bool hashed = within_unique(s[1]);
  if ((!p.number_text && !hashed) || free)
    return judge(plan, number, false) && bearable(s[1], plan) ? make({in_number, s[1], plan, phase_}) : dead;
  if (text_size_ == number_bytes) return dead;
  text_[text_size_++] = static_cast<char>(byte);
  if (!judge(plan, number, false) || !bearable(s[1], plan) || (p.narrow_numbers && next >= 5 && !exponent_bearable(s[1], plan))) return dead;
  bool certain = !hashed && (next == 1 || next == 2 || next == 4);
  for (uint32_t i = 0; i < p.n_nodes && certain; ++i) certain = number_certain(node(pool_[p.nodes + i]));
  if (certain) return make({in_number, s[1], plan, phase_ | 64});
  uint32_t words[11] = {};
  std::memcpy(words, text_, text_size_);
  return make({in_number, s[1], plan, phase_}, View(words, (text_size_ + 3) / 4));
}

}  // namespace gptq::text::constraint
