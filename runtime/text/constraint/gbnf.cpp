// SPDX-License-Identifier: Apache-2.0
// GBNF, the grammars of llama.cpp: name ::= "text" [a-z] . (a | b) name x* x+ x? x{2,5}   # comment
#include <map>
#include <string>

#include "base/failure.h"
#include "text/constraint/sources.h"

namespace gptq::text::constraint {
namespace {

class GbnfParser {
 public:
  GbnfParser(Nfa& nfa, std::string_view text) : nfa_(nfa), text_(text), rules_(nfa.memory) {}
  uint32_t all() {
    const uint32_t root = rule_of("root");
    for (space(true); more(); space(true)) rule();
    for (const auto& [name, rule] : rules_)
      if (nfa_.rules[rule.number].first == Nfa::none)
        base::fail_at(GPTQ_E_INVALID_ARGUMENT, rule.asked_at, "grammar: there is no rule '", std::string_view(name), "', asked for at ",
                      rule.asked_at);
    return root;
  }

 private:
  struct Named { uint32_t number; size_t asked_at; };
  [[noreturn]] void refuse(const char* what, base::Code code = {GPTQ_E_INVALID_ARGUMENT, __builtin_FILE(), __builtin_LINE()}) const {
    base::fail_at(code, at_, "grammar: ", what, " at ", at_);
  }
  bool more() const { return at_ < text_.size(); }
  bool take(char c) { return more() && text_[at_] == c ? (++at_, true) : false; }
  static bool names(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; }

  void space(bool lines) {
    for (; more(); ++at_) {
      const char c = text_[at_];
      if (c == '#') {
        while (more() && text_[at_] != '\n') ++at_;
        if (!more() || !lines) return;
      } else if (c != ' ' && c != '\t' && !(lines && (c == '\n' || c == '\r'))) {
        return;
      }
    }
  }
  std::string_view name() {
    const size_t begin = at_;
    while (more() && names(text_[at_])) ++at_;
    if (at_ == begin) refuse("a name is missing");
    return text_.substr(begin, at_ - begin);
  }
  uint32_t rule_of(std::string_view name) {
    std::pmr::string key(name, nfa_.memory);
    const auto [place, fresh] = rules_.emplace(std::move(key), Named{0, at_});
    if (fresh) place->second.number = nfa_.add_rule();
    return place->second.number;
  }
  void rule() {
    const size_t begin = at_;
    const std::string_view name = this->name();
    const uint32_t rule = rule_of(name);
    space(false);
    if (!text_.substr(at_).starts_with("::=")) refuse("::= is missing");
    if (nfa_.rules[rule].first != Nfa::none) base::fail_at(GPTQ_E_INVALID_ARGUMENT, begin, "grammar: a second rule '", name, "' at ", begin);
    nfa_.rules[rule].name = name;
    nfa_.rules[rule].at = begin;
    at_ += 3;
    space(true);
    nfa_.set_rule(rule, either(false));
    if (more() && text_[at_] != '\n' && text_[at_] != '\r') refuse("a line's end is missing");
  }
  Nfa::Part either(bool lines) {
    if (++depth_ > nfa_.limits.nesting) refuse("groups nested too deeply");
    Nfa::Part all{nfa_.add(), nfa_.add()};
    nfa_.either(all, sequence(lines));
    while (take('|')) {
      space(true);
      nfa_.either(all, sequence(lines));
    }
    --depth_;
    return all;
  }
  bool begins_item() const {
    return more() && (names(text_[at_]) || text_[at_] == '"' || text_[at_] == '[' || text_[at_] == '(' || text_[at_] == '.');
  }
  Nfa::Part sequence(bool lines) {
    Nfa::Part all = nfa_.empty();
    while (begins_item()) {
      Nfa::Part item = this->item();
      space(lines);
      item = repeated(item, lines);
      nfa_.append(all, item);
    }
    if (more() && (text_[at_] == '<' || text_[at_] == '!')) refuse("a token as <think> or <[9]>, which is not supported (quote its text)");
    return all;
  }
  uint32_t number() {
    if (!more() || text_[at_] < '0' || text_[at_] > '9') refuse("a number is missing");
    uint32_t value = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if ((value = value * 10 + static_cast<uint32_t>(text_[at_] - '0')) > nfa_.limits.nodes) refuse("too many repeats");
    return value;
  }
  Nfa::Part repeated(Nfa::Part part, bool lines) {
    for (;;) {
      if (take('*')) part = nfa_.repeat(part, 0, Nfa::none);
      else if (take('+')) part = nfa_.repeat(part, 1, Nfa::none);
      else if (take('?')) part = nfa_.repeat(part, 0, 1);
      else if (take('{')) {
        space(lines);
        uint32_t least = more() && text_[at_] == ',' ? 0 : number(), most = least;
        space(lines);
        if (take(',')) {
          space(lines);
          most = more() && text_[at_] == '}' ? Nfa::none : number();
          space(lines);
        }
        if (!take('}') || most < least) refuse("a wrong {m,n}");
        part = nfa_.repeat(part, least, most);
      } else {
        return part;
      }
      space(lines);
    }
  }
  uint32_t hex(unsigned digits) {
    const std::optional<uint32_t> value = read_hex(text_, at_, digits);
    if (!value) refuse("a hexadecimal digit is missing");
    if (*value > code_point_max) refuse("no code point");
    return *value;
  }
  uint32_t character() {
    if (!more()) refuse("an open text or class");
    if (!take('\\')) return read_code_point(text_, at_, "grammar");
    const char c = more() ? text_[at_++] : ' ';
    switch (c) {
      case 'n': return '\n';
      case 't': return '\t';
      case 'r': return '\r';
      case 'x': return hex(2);
      case 'u': return hex(4);
      case 'U': return hex(8);
      case '"': case '\\': case '[': case ']': case '-': case '^': case '/': return static_cast<uint32_t>(c);
      default: refuse("an unknown escape");
    }
  }
  Nfa::Part item() {
    if (take('"')) {
      Nfa::Part all = nfa_.empty();
      while (!take('"')) {
        CharClass one(nfa_.memory);
        const uint32_t code = character();
        one.add(code, code);
        nfa_.append(all, nfa_.of(one));
      }
      return all;
    }
    if (take('(')) {
      space(true);
      const Nfa::Part part = either(true);
      if (!take(')')) refuse("an open group");
      return part;
    }
    if (names(text_[at_])) return nfa_.call(rule_of(name()));
    CharClass set(nfa_.memory);
    if (take('.')) {
      set.add(0, code_point_max);
      return nfa_.of(set);
    }
    ++at_;  // [
    const bool negated = take('^');
    while (!take(']')) {
      const uint32_t low = character();
      uint32_t high = low;
      if (at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']') {
        ++at_;
        high = character();
      }
      if (high < low) refuse("a range that runs backwards");
      set.add(low, high);
    }
    if (negated) set.invert();
    set.sort();
    if (set.ranges.empty()) refuse("a class that holds nothing");
    return nfa_.of(set);
  }

  Nfa& nfa_;
  const std::string_view text_;
  std::pmr::map<std::pmr::string, Named> rules_;
  size_t at_ = 0;
  uint32_t depth_ = 0;
};

}  // namespace

uint32_t add_grammar(Nfa& nfa, std::string_view source) { return GbnfParser(nfa, source).all(); }

Nfa grammar(std::string_view source, std::pmr::memory_resource* memory) {
  Nfa nfa({}, memory);
  add_grammar(nfa, source);
  nfa.finish("grammar");
  return nfa;
}

}  // namespace gptq::text::constraint
