// SPDX-License-Identifier: Apache-2.0
// Whether a string in progress can still come to an end. What is found depends on the text alone: what is remembered spares work, and
// changes no answer.
#include <algorithm>
#include <bit>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// The state, where a text that ends it is left.
uint32_t SchemaMachine::string_state(std::initializer_list<uint32_t> head, View automata) {
  const uint32_t state = make(head, automata);
  if (state == dead) return dead;
  const View s = states_.at(state);
  return s[3] || string_possible(s[1], s[2], s.subspan(8), s[5] + (s[4] != 0), joined(s[6], s[7])) ? state : dead;
}

// Whether the string may end here.
bool SchemaMachine::string_holds(uint32_t frame, uint32_t plan, uint64_t hash) {
  if (!judge(plan, string, true) || !bearable(frame, plan)) return false;
  return !is_taken(mix(hash, 3), taken_in(frame));
}

// Of bytes that no rule tells apart the first alone is tried, where it counts as a character as the others do.
bool SchemaMachine::stands_for_others(uint8_t byte) const {
  return patterns_.run_of(byte).first == byte || byte == ' ' || byte == 0x80 || byte == 0xC0;
}

// A search for a text that ends it, of characters as they are after escapes. One that takes too long says yes.
bool SchemaMachine::string_possible(uint32_t frame, uint32_t plan, View automata, uint32_t count, uint64_t hash) {
  const Plan p = plans_[plan];
  if (!p.narrow_strings && (!within_unique(frame) || p.plain_strings)) return true;
  const bool hashed = !taken_in(frame).empty();
  if (roomy(plan, automata, count, count, wanted(frame))) return true;
  if (!hashed) hash = 0;
  const uint32_t around = hashed || p.optional ? frame : 0;  // which the answer depends on
  const size_t width = p.n_rules + 6, head = 6;
  enum : size_t { at_byte = 0, at_frame, at_plan, at_count, at_hash };  // an entry: the byte that is next, then what it is known by
  ways_.clear();
  const auto known_by = [&](size_t entry) { return View(ways_).subspan(entry + 1, width - 1); };
  const auto push = [&](View states, uint32_t n, uint64_t h) {
    ways_.insert(ways_.end(), {0, around, plan, n, low_of(h), high_of(h)});
    ways_.insert(ways_.end(), states.begin(), states.end());
  };
  const auto remember = [&](Interner& answers, View key) {
    if (answers.add(key) == none) answers.clear();
  };
  push(automata.first(p.n_rules), count, hash);
  if (finishable_.has(known_by(0))) return true;
  if (hopeless_.has(known_by(0))) return false;
  tried_strings_.clear();
  // Whether the last entry is one that ends well; where it was here before it goes.
  bool found = false, enough = false;
  const auto look = [&] {
    const size_t entry = ways_.size() - width;
    const uint32_t before = tried_strings_.size();
    if (tried_strings_.add(known_by(entry)) != before) {
      found = enough = tried_strings_.size() == before && tried_strings_.add(known_by(entry)) == none;  // no place for another
      ways_.resize(entry);
      return;
    }
    count_ = ways_[entry + at_count];
    automata_ = View(ways_).subspan(entry + head, p.n_rules);
    found = finishable_.has(known_by(entry)) || string_holds(frame, plan, joined(ways_[entry + at_hash], ways_[entry + at_hash + 1]));
    if (!found && !judge(plan, string, false)) ways_.resize(entry);
  };
  look();
  while (!found && !ways_.empty() && !patterns_.full()) {
    const size_t entry = ways_.size() - width;
    const uint32_t from = ways_[entry + at_byte], byte = hashed ? from : next_tried_[from];
    ways_[entry + at_byte] = byte + 1;
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
    // One character stands for all that no rule knows.
    const Run letters = patterns_.run_of('a');
    if (!any && (hashed ? c != 'a' : c >= 0x80 || c < letters.first || c > letters.last)) continue;
    const uint32_t n = std::min(ways_[entry + at_count] + ((c & 0xC0) != 0x80), p.length_cap);
    const uint64_t h = joined(ways_[entry + at_hash], ways_[entry + at_hash + 1]);
    push(step_, n, hashed ? mix(h + 1, c) : h);
    look();
  }
  if (patterns_.full()) return full_ = true, false;
  // Where it took too long, that is so of the first alone.
  for (size_t entry = 0; found && entry < (enough ? width : ways_.size()); entry += width) remember(finishable_, known_by(entry));
  // All that was tried leads nowhere; each alone would have taken less time.
  for (uint32_t i = 0; !found && i < tried_strings_.size(); ++i) remember(hopeless_, tried_strings_.at(i));
  return found;
}

// Whether so many texts that end it are left wherever from low to high its count is. No: that is not known.
bool SchemaMachine::roomy(uint32_t plan, View automata, uint32_t low, uint32_t high, uint32_t wanted) {
  const Plan p = plans_[plan];
  if (p.plain_strings) return true;
  if (!p.plain_limits || high > p.max_length) return false;
  const Ends ends = p.n_rules ? ends_of(plan, automata) : Ends{0, 1};
  const uint32_t least = p.min_length > low ? p.min_length - low : 0, most = p.max_length == none ? none : p.max_length - high;
  if (ends.length == none || ends.length > most) return false;
  if (!ends.cycle) return wanted == 1 && ends.length >= least;
  const uint32_t first = ends.length >= least ? 0 : (least - ends.length + ends.cycle - 1) / ends.cycle;
  const uint32_t last = (most - ends.length) / ends.cycle;
  return last >= first && last - first + 1 >= wanted;
}

// The frame, and those around it, as far as no array compares what they hold.
uint32_t SchemaMachine::without_hashes(uint32_t frame) {
  constexpr size_t deepest = 64;
  roots_.clear();
  for (uint32_t at = frame; hashing(at); at = frames_.at(at)[f_parent]) {
    if (const View words = frames_.at(at); words[f_count] & 1 && plans_[words[f_plan]].unique) break;
    if (roots_.size() == deepest) return frame;
    roots_.push_back(at);
  }
  for (size_t i = roots_.size(); i-- > 0;) {
    const View words = frames_.at(roots_[i]);
    around_.assign(words.begin(), words.end());
    if (i + 1 < roots_.size()) around_[f_parent] = frame;
    around_[f_hashing] = 2;
    std::fill_n(around_.begin() + f_hash, 4, 0u);
    frame = frames_.add(around_);
    if (frame == none) return full_ = true, roots_[0];
  }
  return frame;
}

uint32_t SchemaMachine::loose(uint32_t state, uint32_t& bytes_max) {
  bytes_max = TokenTrie::kLongest;
  const View s = states_.at(state);
  if (s.size() < 2) return dead;
  const bool hashed = hashing(s[1]);
  if (const uint32_t frame = hashed && s[0] != in_number ? without_hashes(s[1]) : s[1]; frame != s[1]) {
    step_.assign(s.begin(), s.end());
    step_[1] = frame;
    if (s[0] == in_string || s[0] == in_key) std::fill_n(step_.begin() + (s[0] == in_key ? 8 : 6), 2, 0u);
    return make({}, step_);
  }
  if (s[0] != in_string || s[3] || s[4]) return dead;
  const Plan& p = plans_[s[2]];
  for (const uint32_t step : {long_step, 32u}) {
    if (!hashed && (!p.n_rules || s[5] == p.length_cap)) return dead;
    const uint32_t base = p.length_cap ? s[5] / step * step : 0;
    const uint32_t to = loose_state(s[2], 0, base, std::bit_ceil(wanted(s[1])), step, s.subspan(8));
    if (to != doubt) return bytes_max = step - 1, to;
  }
  return hashed && taken_in(s[1]).empty() ? make({loose_string, s[1], s[2], 0, 0, s[5], 0, 0}, s.subspan(8)) : dead;
}

// base: what the count is at least; it is less than two steps above that.
uint32_t SchemaMachine::loose_state(uint32_t plan, uint32_t utf8, uint32_t base, uint32_t wanted, uint32_t step, View automata) {
  if (!roomy(plan, automata, base, base + 2 * step - 1, wanted)) return doubt;
  return make({loose_string, 0, plan, 0, utf8, base, wanted, step}, automata);
}

uint32_t SchemaMachine::on_loose(View s, uint8_t byte) {
  StringReader reader{.escape = 0, .utf8 = s[4]};
  const auto result = reader.take(byte);
  if (result == StringReader::wrong) return dead;
  if (result == StringReader::closes || reader.escape) return doubt;
  Words& states = roots_;
  states.assign(s.begin() + 8, s.end());
  for (uint32_t& state : states) state = patterns_.next(state, byte);
  if (patterns_.full()) return full_ = true, dead;
  if (s[6]) return std::ranges::find(states, dead) != states.end() ? dead : loose_state(s[2], reader.utf8, s[5], s[6], s[7], states);
  const uint32_t count = std::min(s[5] + reader.character, plans_[s[2]].length_cap);
  count_ = count + (reader.utf8 != 0);
  automata_ = states;
  if (!judge(s[2], string, false) || !bearable(s[1], s[2]) || !string_possible(s[1], s[2], states, count_, 0)) return dead;
  return make({loose_string, s[1], s[2], 0, reader.utf8, count, 0, 0}, states);
}

uint32_t SchemaMachine::exactly(uint32_t state, uint32_t loose, std::string_view bytes, uint8_t byte) {
  const View s = states_.at(state), to = states_.at(loose);
  if (to[0] != loose_string) {
    for (const char c : bytes) state = next(state, static_cast<uint8_t>(c));
    return next(state, byte);
  }
  uint32_t count = s[5] - (to[4] != 0);
  uint64_t hash = joined(s[6], s[7]);
  for (const char c : bytes) {
    count += (c & 0xC0) != 0x80;
    if (hashing(s[1])) hash = mix(hash + 1, static_cast<uint8_t>(c));
  }
  const uint32_t from =
      make({in_string, s[1], s[2], 0, to[4], std::min(count, plans_[s[2]].length_cap), low_of(hash), high_of(hash)}, to.subspan(8));
  return from == dead ? dead : next(from, byte);
}

// Bytes that JSON's strings and UTF-8 read alike, rules do not tell apart, and no name of a key has here.
Machine::Run SchemaMachine::alike(uint32_t state, uint8_t byte) const {
  const View s = states_.at(state);
  const Run alone{byte, byte};
  if (s.empty()) return alone;
  const bool key = s[0] == in_key;
  if (!key && s[0] != in_string && s[0] != loose_string) return alone;
  if (s[key ? 2 : 3] || (s[0] != loose_string && hashing(s[1]))) return alone;
  constexpr std::string_view begins("\0\x20\x22\x23\x5C\x5D\x80\x90\xA0\xC0\xC2\xE0\xE1\xED\xEE\xF0\xF1\xF4\xF5", 19);
  Run run{0, 255};
  for (const char begin : begins) {
    const auto at = static_cast<uint8_t>(begin);
    if (at <= byte) run.first = at;
    else run.last = std::min<uint8_t>(run.last, at - 1);
  }
  const auto meet = [&](Run other) { run = {std::max(run.first, other.first), std::min(run.last, other.last)}; };
  if (key || !plans_[s[2]].plain_strings) meet(patterns_.run_of(byte));
  if (!key) return run;
  const Plan& p = plans_[frames_.at(s[1])[f_plan]];
  for (uint32_t i = s[4]; i < s[5]; ++i) {
    const std::string_view name = schema_.names[pool_[p.names + i]];
    const auto at = static_cast<uint8_t>(s[6] < name.size() ? name[s[6]] : '"');
    if (at == byte) return alone;
    if (at < byte) run.first = std::max<uint8_t>(run.first, at + 1);
    else run.last = std::min<uint8_t>(run.last, at - 1);
  }
  return run;
}

}  // namespace gptq::text::constraint
