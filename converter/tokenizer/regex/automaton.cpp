// SPDX-License-Identifier: Apache-2.0
// From a tree to instructions, whose ordered sets are the states of the table (subset construction; what comes behind a match is cut).
#include "converter/tokenizer/regex/automaton.h"

#include <algorithm>
#include <map>
#include <string>

#include "base/failure.h"

namespace gptq::convert::regex {
namespace {

constexpr size_t instructions_max = 20'000, table_max = 1u << 20, classes_max = 255;
constexpr uint16_t matched = 0x8000;

[[noreturn]] void too_large() { base::fail(GPTQ_E_UNSUPPORTED, "tokenizer: a splitting pattern's table would be too large"); }

void collect(const Node& node, std::vector<Set>& sets) {
  if (node.kind == Node::one || node.kind == Node::ahead || node.kind == Node::behind) sets.push_back(node.set);
  for (const Node& part : node.parts) collect(part, sets);
}

struct Instruction {
  enum Kind { match, split, one, ahead, behind } kind;
  uint32_t next = 0, other = 0;  // other: of split, the second choice
  uint32_t set = 0;
  bool edge = false;
};

// Written from the end: each part knows where it leads to.
class Instructions {
 public:
  Instructions(const Node& pattern, const std::vector<Set>& sets) : sets_(sets) { start = add(pattern, put({Instruction::match})); }

  std::vector<Instruction> list;
  uint32_t start = 0;

 private:
  uint32_t put(Instruction instruction) {
    if (list.size() >= instructions_max) too_large();
    list.push_back(instruction);
    return static_cast<uint32_t>(list.size() - 1);
  }
  uint32_t split(uint32_t first, uint32_t second) { return put({.kind = Instruction::split, .next = first, .other = second}); }

  uint32_t add(const Node& node, uint32_t next) {
    switch (node.kind) {
      case Node::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = add(node.parts[i], next);
        return next;
      case Node::choice: {
        uint32_t at = add(node.parts.back(), next);
        for (size_t i = node.parts.size() - 1; i-- > 0;) at = split(add(node.parts[i], next), at);
        return at;
      }
      case Node::repeat: return add_repeat(node, next);
      case Node::one: return put({.kind = Instruction::one, .next = next, .set = index(node.set)});
      case Node::ahead: return put({.kind = Instruction::ahead, .next = next, .set = index(node.set), .edge = node.edge});
      case Node::behind: return put({.kind = Instruction::behind, .next = next, .set = index(node.set), .edge = node.edge});
    }
    return next;
  }

  uint32_t add_repeat(const Node& node, uint32_t next) {
    const Node& part = node.parts[0];
    const auto choice = [&](uint32_t more, uint32_t enough) { return node.lazy ? split(enough, more) : split(more, enough); };
    if (node.max == UINT32_MAX) {
      const uint32_t loop = choice(0, 0);
      const uint32_t body = add(part, loop);
      list[loop].next = node.lazy ? next : body;
      list[loop].other = node.lazy ? body : next;
      next = loop;
    } else {
      const uint32_t end = next;
      for (uint32_t i = node.min; i < node.max; ++i) next = choice(add(part, next), end);
    }
    for (uint32_t i = 0; i < node.min; ++i) next = add(part, next);
    return next;
  }

  uint32_t index(const Set& set) const {
    return static_cast<uint32_t>(std::lower_bound(sets_.begin(), sets_.end(), set) - sets_.begin());
  }

  const std::vector<Set>& sets_;
};

// Instructions in order of their right to match, and the class before where that matters.
struct State {
  std::vector<uint32_t> at;
  uint32_t before;
  auto operator<=>(const State&) const = default;
};

class Builder {
 public:
  Builder(const Node& pattern, const Classes& classes) : code_(pattern, classes.sets), classes_(classes), seen_(code_.list.size()) {
    for (const Instruction& instruction : code_.list) looks_behind_ |= instruction.kind == Instruction::behind;
    states_.emplace(State{{}, classes_.n}, 0);
    todo_.push_back({{}, classes_.n});
  }

  Automaton build() {
    Automaton out;
    for (uint32_t before = looks_behind_ ? 0 : classes_.n; before <= classes_.n; ++before) out.start.push_back(number({{code_.start}, before}));
    for (size_t row = 0; row < todo_.size(); ++row) {
      const State state = todo_[row];
      for (uint32_t c = 0; c <= classes_.n; ++c) out.next.push_back(step(state, c));
      if (out.next.size() > table_max) too_large();
    }
    return out;
  }

 private:
  uint16_t number(State state) {
    if (state.at.empty() || !looks_behind_) state.before = classes_.n;
    const auto [place, is_new] = states_.emplace(state, states_.size());
    if (is_new) todo_.push_back(std::move(state));
    if (states_.size() >= matched) too_large();
    return static_cast<uint16_t>(place->second);
  }

  bool holds(const Instruction& instruction, uint32_t c) const {
    return c == classes_.n ? instruction.edge : classes_.in_set[instruction.set * classes_.n + c] != 0;
  }

  uint16_t step(const State& state, uint32_t c) {
    std::fill(seen_.begin(), seen_.end(), false);
    State next{{}, c};
    bool matches = false;
    std::vector<uint32_t> stack(state.at.rbegin(), state.at.rend());
    while (!stack.empty()) {
      const uint32_t at = stack.back();
      stack.pop_back();
      if (seen_[at]) continue;
      seen_[at] = true;
      const Instruction& instruction = code_.list[at];
      switch (instruction.kind) {
        case Instruction::match: matches = true; break;
        case Instruction::split:
          stack.push_back(instruction.other);
          stack.push_back(instruction.next);
          break;
        case Instruction::one:
          if (c == classes_.n || !holds(instruction, c)) break;
          if (std::find(next.at.begin(), next.at.end(), instruction.next) == next.at.end()) next.at.push_back(instruction.next);
          break;
        case Instruction::ahead:
          if (holds(instruction, c)) stack.push_back(instruction.next);
          break;
        case Instruction::behind:
          if (holds(instruction, state.before)) stack.push_back(instruction.next);
          break;
      }
      if (matches) break;
    }
    return static_cast<uint16_t>(number(std::move(next)) | (matches ? matched : 0));
  }

  Instructions code_;
  const Classes& classes_;
  std::vector<bool> seen_;
  bool looks_behind_ = false;
  std::map<State, size_t> states_;
  std::vector<State> todo_;
};

}  // namespace

Classes classify(const std::vector<const Node*>& patterns) {
  Classes out;
  for (const Node* pattern : patterns) collect(*pattern, out.sets);
  std::sort(out.sets.begin(), out.sets.end());
  out.sets.erase(std::unique(out.sets.begin(), out.sets.end()), out.sets.end());
  std::vector<uint32_t> edges{0, code_end};
  for (const Set& set : out.sets)
    for (const Set::Range& range : set.ranges()) edges.insert(edges.end(), {range.first, range.last + 1});
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  // The last character of all is of class 0, so that the tables end where everything behind is like it.
  std::map<std::vector<bool>, uint8_t> known;
  const auto class_of = [&](uint32_t code) {
    std::vector<bool> members(out.sets.size());
    for (size_t i = 0; i < members.size(); ++i) members[i] = out.sets[i].contains(code);
    const auto [place, is_new] = known.emplace(std::move(members), static_cast<uint8_t>(known.size()));
    if (known.size() > classes_max) too_large();
    return place->second;
  };
  std::vector<uint8_t> all(code_end);
  class_of(code_end - 1);
  for (size_t i = 0; i + 1 < edges.size(); ++i) std::fill(all.begin() + edges[i], all.begin() + edges[i + 1], class_of(edges[i]));
  out.n = static_cast<uint32_t>(known.size());
  out.in_set.resize(out.sets.size() * out.n);
  for (const auto& [members, c] : known)
    for (size_t i = 0; i < members.size(); ++i) out.in_set[i * out.n + c] = members[i];
  std::map<std::string, uint16_t> numbers;
  while (!all.empty() && all.back() == 0) all.pop_back();
  all.resize((all.size() + 127) / 128 * 128);
  for (size_t at = 0; at < all.size(); at += 128) {
    const std::string block(all.begin() + static_cast<ptrdiff_t>(at), all.begin() + static_cast<ptrdiff_t>(at + 128));
    const auto [place, is_new] = numbers.emplace(block, static_cast<uint16_t>(numbers.size()));
    if (is_new) out.blocks.insert(out.blocks.end(), block.begin(), block.end());
    out.index.push_back(place->second);
  }
  return out;
}

Automaton compile(const Node& pattern, const Classes& classes) { return Builder(pattern, classes).build(); }

}  // namespace gptq::convert::regex
