// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/nfa.h"

#include <algorithm>
#include <utility>

#include "base/failure.h"
#include "text/utf8.h"

namespace gptq::text::constraint {

void CharClass::sort() {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.low < b.low; });
  size_t n = 0;
  for (const Range& r : ranges) {
    if (n && r.low <= ranges[n - 1].high + 1) ranges[n - 1].high = std::max(ranges[n - 1].high, r.high);
    else ranges[n++] = r;
  }
  ranges.resize(n);
}

void CharClass::invert() {
  sort();
  std::pmr::vector<Range> others(ranges.get_allocator());
  uint32_t low = 0;
  for (const Range& r : ranges) {
    if (r.low > low) others.push_back({low, r.low - 1});
    low = r.high + 1;
  }
  if (low <= code_point_max) others.push_back({low, code_point_max});
  ranges = std::move(others);
}

uint32_t Nfa::add(const Node& node) {
  if (nodes.size() >= limits.nodes)
    base::fail(GPTQ_E_INVALID_ARGUMENT, "the constraint needs more than ", limits.nodes, " nodes: too many or too large repeats");
  nodes.push_back(node);
  return static_cast<uint32_t>(nodes.size() - 1);
}

void Nfa::fork(uint32_t from, uint32_t to) {
  if (nodes[from].a == none) { nodes[from].a = to; return; }
  if (nodes[from].b != none) {
    const uint32_t moved = add({nodes[from].a, nodes[from].b});
    nodes[from].a = moved;
  }
  nodes[from].b = to;
}

uint32_t Nfa::add_rule() {
  rules.emplace_back();
  return static_cast<uint32_t>(rules.size() - 1);
}

void Nfa::set_rule(uint32_t rule, Part part) {
  const uint32_t end = add({.kind = Kind::end});
  fork(part.last, end);
  rules[rule].first = part.first;
  rules[rule].last = end;
}

Nfa::Part Nfa::call(uint32_t rule) {
  const uint32_t after = add(), before = add();
  fork(before, add({after, rule, Kind::call}));
  return {before, after};
}

void Nfa::append(Part& one, Part next) {
  fork(one.last, next.first);
  one.last = next.last;
}

void Nfa::either(Part& all, Part next) {
  fork(all.first, next.first);
  fork(next.last, all.last);
}

Nfa::Part Nfa::literal(std::string_view bytes) {
  Part part = empty();
  for (const char c : bytes) {
    const uint32_t to = add();
    fork(part.last, add({to, none, Kind::range, static_cast<uint8_t>(c), static_cast<uint8_t>(c)}));
    part.last = to;
  }
  return part;
}

// The well-formed sequences of these code points: split until each byte has a range of its own.
void Nfa::bytes_between(Part part, uint32_t low, uint32_t high) {
  for (const uint32_t limit : {0x7Fu, 0x7FFu, 0xFFFFu})
    if (low <= limit && high > limit) {
      bytes_between(part, low, limit);
      return bytes_between(part, limit + 1, high);
    }
  const unsigned n = low <= 0x7F ? 1 : low <= 0x7FF ? 2 : low <= 0xFFFF ? 3 : 4;
  for (unsigned i = 1; i < n; ++i) {
    const uint32_t below = (1u << (6 * i)) - 1;
    if ((low & ~below) == (high & ~below)) continue;
    if (low & below) {
      bytes_between(part, low, low | below);
      return bytes_between(part, (low | below) + 1, high);
    }
    if ((high & below) != below) {
      bytes_between(part, low, (high & ~below) - 1);
      return bytes_between(part, high & ~below, high);
    }
  }
  constexpr uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  uint32_t to = part.last;
  for (unsigned i = 0; i < n; ++i) {
    const auto byte = [&](uint32_t code) {
      return static_cast<uint8_t>(i + 1 == n ? lead[n] | code >> (6 * i) : 0x80 | (code >> (6 * i) & 0x3F));
    };
    to = add({to, none, Kind::range, byte(low), byte(high)});
  }
  fork(part.first, to);
}

Nfa::Part Nfa::of(CharClass& set) {
  set.sort();
  const Part part{add(), add()};
  for (const CharClass::Range& r : set.ranges) {
    constexpr uint32_t first = 0xD800, last = 0xDFFF;  // surrogates have no bytes
    if (r.low < first) bytes_between(part, r.low, std::min(r.high, first - 1));
    if (r.high > last) bytes_between(part, std::max(r.low, last + 1), r.high);
  }
  return part;
}

Nfa::Part Nfa::anything() {
  CharClass all(memory);
  all.add(0, code_point_max);
  return repeat(of(all), 0, none);
}

Nfa::Part Nfa::shared(Part part) {
  const uint32_t rule = add_rule();
  set_rule(rule, part);
  return call(rule);
}

Nfa::Part Nfa::repeat(Part part, uint32_t least, uint32_t most) {
  const Part all{add(), add()};
  const uint32_t copies = most == none ? std::max(least, 1u) : most;
  if (copies > limits.nodes) base::fail(GPTQ_E_INVALID_ARGUMENT, "more repeats than ", limits.nodes);
  uint32_t rule = none;
  if (copies > 1) {
    rule = add_rule();
    set_rule(rule, part);
  }
  uint32_t here = all.first;
  for (uint32_t i = 0; i < copies; ++i) {
    const Part copy = rule == none ? part : call(rule);
    if (i >= least) fork(here, all.last);
    fork(here, copy.first);
    here = add();  // a join of its own: the part's last node may lead elsewhere already
    fork(copy.last, here);
    part = copy;
  }
  if (most == none) fork(here, part.first);
  fork(here, all.last);
  return all;
}

namespace {

// Marks the nodes from which a rule's end is reached; empty: also over bytes, but behind a $ only where this marks it.
std::pmr::vector<uint8_t> mark_ends(const Nfa& nfa, const std::pmr::vector<uint8_t>* empty = nullptr) {
  using Kind = Nfa::Kind;
  const auto& nodes = nfa.nodes;
  const size_t n = nodes.size();
  // Who leads to a node: before[first[i]] up to before[first[i + 1]]; a rule's beginning is also waited for by its calls.
  std::pmr::vector<uint32_t> first(n + 1, 0, nfa.memory), before(nfa.memory), open(nfa.memory);
  const auto each = [&](auto&& edge) {
    for (uint32_t i = 0; i < n; ++i) {
      const Nfa::Node& node = nodes[i];
      if (node.kind == Kind::range && !empty) continue;
      if (node.a != Nfa::none) edge(i, node.a);
      if (node.b != Nfa::none) edge(i, node.kind == Kind::call ? nfa.rules[node.b].first : node.b);
    }
  };
  each([&](uint32_t, uint32_t to) { ++first[to]; });
  for (size_t i = 0, sum = 0; i <= n; ++i) sum += std::exchange(first[i], static_cast<uint32_t>(sum));
  before.resize(2 * n);
  std::pmr::vector<uint32_t> fill(first, nfa.memory);
  each([&](uint32_t from, uint32_t to) { before[fill[to]++] = from; });
  std::pmr::vector<uint8_t> mark(n, 0, nfa.memory);
  const auto set = [&](uint32_t i) {
    if (!std::exchange(mark[i], 1)) open.push_back(i);
  };
  for (uint32_t i = 0; i < n; ++i)
    if (nodes[i].kind == Kind::end) set(i);
  while (!open.empty()) {
    const uint32_t i = open.back();
    open.pop_back();
    for (uint32_t k = first[i]; k < first[i + 1]; ++k) {
      const Nfa::Node& node = nodes[before[k]];
      if (node.kind == Kind::call && !(mark[node.a] && mark[nfa.rules[node.b].first])) continue;
      if (node.kind == Kind::finish && empty && !(*empty)[node.a]) continue;
      set(before[k]);
    }
  }
  return mark;
}

[[noreturn]] void refuse(std::string_view what, const Nfa::Rule& r, const char* why) {
  base::fail_at(GPTQ_E_INVALID_ARGUMENT, r.at, what, ": rule '", r.name, "' ", why, ", at ", r.at);
}

}  // namespace

void Nfa::finish(std::string_view what, bool refuse_endless) {
  const auto is_empty = mark_ends(*this), can_end = mark_ends(*this, &is_empty);
  for (Rule& r : rules) {
    if (refuse_endless && !can_end[r.first]) refuse(what, r, "can never end");
    r.nullable = is_empty[r.first];
  }
  // Ways that never end are cut.
  for (Node& n : nodes) {
    if (n.kind == Kind::call && !(can_end[n.a] && can_end[rules[n.b].first])) n = {};
    if (n.a != none && !can_end[n.a]) n.a = none;
    if (n.kind == Kind::fork && n.b != none && !can_end[n.b]) n.b = none;
  }
  sort_rules(what);
}

// Depth first along the calls that a rule can begin with, without recursion.
void Nfa::sort_rules(std::string_view what) {
  struct Visit { uint32_t rule; std::pmr::vector<uint32_t> open; };
  std::pmr::vector<uint8_t> mark(rules.size(), 0, memory);  // 1: on the way, 2: done
  std::pmr::vector<uint32_t> seen(nodes.size(), none, memory);
  std::pmr::vector<Visit> way(memory);
  uint32_t order = static_cast<uint32_t>(rules.size());
  const auto enter = [&](uint32_t rule) {
    if (mark[rule] == 1) {
      const Rule* named = &rules[rule];
      for (auto v = way.rbegin(); named->name.empty() && v != way.rend(); ++v) named = &rules[v->rule];
      refuse(what, *named, "calls itself before any text");
    }
    if (mark[rule]) return;
    mark[rule] = 1;
    way.push_back({rule, std::pmr::vector<uint32_t>(1, rules[rule].first, memory)});
  };
  for (uint32_t root = 0; root < rules.size(); ++root) {
    enter(root);
    while (!way.empty()) {
      const uint32_t rule = way.back().rule;
      if (way.back().open.empty()) {
        mark[rule] = 2;
        rules[rule].order = --order;
        way.pop_back();
        continue;
      }
      const uint32_t n = way.back().open.back();
      way.back().open.pop_back();
      if (n == none || seen[n] == rule) continue;
      seen[n] = rule;
      const Node& node = nodes[n];
      if (node.kind == Kind::range || node.kind == Kind::end) continue;
      if (node.kind == Kind::call) {
        if (rules[node.b].nullable) way.back().open.push_back(node.a);
        enter(node.b);
        continue;
      }
      way.back().open.push_back(node.a);
      way.back().open.push_back(node.b);
    }
  }
}

}  // namespace gptq::text::constraint
