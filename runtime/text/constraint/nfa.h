// SPDX-License-Identifier: Apache-2.0
// Rules over bytes as a graph: what regular expressions and grammars become. Its size is bounded at compile.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <memory_resource>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace gptq::text::constraint {

constexpr uint32_t code_point_max = 0x10FFFF;

struct NfaLimits {
  uint32_t nodes = 200'000;
  uint32_t nesting = 200;
};

// A set of characters: ranges of code points.
struct CharClass {
  struct Range { uint32_t low, high; };
  explicit CharClass(std::pmr::memory_resource* memory) : ranges(memory) {}
  void add(uint32_t low, uint32_t high) { ranges.push_back({low, high}); }
  void add(const CharClass& other) { ranges.insert(ranges.end(), other.ranges.begin(), other.ranges.end()); }
  void sort();
  void invert();
  std::pmr::vector<Range> ranges;
};

class Nfa {
 public:
  static constexpr uint32_t none = ~0u;
  enum class Kind : uint8_t { fork, range, call, end, begin, finish };
  // fork: to a and b, as far as they are there. range: a byte, to a. call: rule b, then a. begin, finish: only there, to a.
  struct Node {
    uint32_t a = none, b = none;
    Kind kind = Kind::fork;
    uint8_t low = 0, high = 0;
  };
  struct Part { uint32_t first, last; };
  struct Rule {
    uint32_t first = none, last = none;
    bool nullable = false;
    uint32_t order = 0;  // a rule that begins with a call comes before the called one
    std::string_view name;  // in the source, for messages until finish() is done
    size_t at = 0;          // where the source has it
  };

  Nfa(const NfaLimits& limits, std::pmr::memory_resource* memory) : nodes(memory), rules(memory), limits(limits), memory(memory) {}

  uint32_t add(const Node& node);
  uint32_t add() { return add(Node{}); }
  Part empty() { const uint32_t n = add(); return {n, n}; }
  void fork(uint32_t from, uint32_t to);
  uint32_t add_rule();
  void set_rule(uint32_t rule, Part part);
  Part call(uint32_t rule);
  Part of(CharClass& set);
  Part literal(std::string_view bytes);
  void append(Part& one, Part next);
  void either(Part& all, Part next);
  // What part() gives, again for each copy; most = none: any number.
  Part repeat(Part part, uint32_t least, uint32_t most);
  Part shared(Part part);  // as a rule, where it is large
  // Any whole characters.
  Part anything();
  // To be called after the last rule. refuse_endless: rules that can never end.
  void finish(std::string_view what, bool refuse_endless = true);

  std::pmr::vector<Node> nodes;
  std::pmr::vector<Rule> rules;
  const NfaLimits limits;
  std::pmr::memory_resource* const memory;

 private:
  void bytes_between(Part part, uint32_t low, uint32_t high);
  void sort_rules(std::string_view what);
};

// A regular expression as a new rule; returns it. search: anywhere in the text, as JSON Schema means patterns; else as a whole.
uint32_t add_regex(Nfa& nfa, std::string_view pattern, bool search, std::string_view document);
// One character of a UTF-8 text, or an escape, at `at`. Fails at bad UTF-8.
uint32_t read_code_point(std::string_view text, size_t& at, std::string_view document);
// The value of so many hexadecimal digits at `at`, which moves behind them; or nothing, and it stands behind what is none.
std::optional<uint32_t> read_hex(std::string_view text, size_t& at, unsigned digits);

}  // namespace gptq::text::constraint
