// SPDX-License-Identifier: Apache-2.0
// Regular expressions, in what ECMAScript, Python and PCRE have in common; \s is ECMA-262's.
#include <algorithm>

#include "base/failure.h"
#include "text/constraint/nfa.h"
#include "text/unicode/classes.h"
#include "text/utf8.h"

namespace gptq::text::constraint {
namespace {

// ECMA-262's WhiteSpace and LineTerminator.
constexpr uint16_t white[][2] = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                                 {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};

class Parser {
 public:
  // from_begin: what matches begins where the text does, so that ^ can hold; to_end: $.
  Parser(Nfa& nfa, std::string_view text, std::string_view document, bool from_begin, bool to_end)
      : nfa_(nfa), text_(text), document_(document), from_begin_(from_begin), to_end_(to_end) {}
  bool has_begin = false, has_end = false;  // a ^, a $
  bool only_at_begin = false, only_at_end = false;  // the whole begins with it, ends with it
  Nfa::Part whole() {
    const Nfa::Part part = either();
    if (more()) refuse("an unmatched )");
    return part;
  }

 private:
  [[noreturn]] void refuse(const char* what, base::Code code = {GPTQ_E_INVALID_ARGUMENT, __builtin_FILE(), __builtin_LINE()}) const {
    base::fail_at(code, at_, document_, ": ", what, " at ", at_);
  }
  bool more() const { return at_ < text_.size(); }
  bool ahead(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(char c) { return more() && text_[at_] == c ? (++at_, true) : false; }

  Nfa::Part either() {
    if (++depth_ > nfa_.limits.nesting) refuse("groups nested too deeply");
    const Nfa::Part first = sequence();
    if (!more() || text_[at_] != '|') {
      if (--depth_ == 0) {
        only_at_begin = text_.starts_with('^');
        only_at_end = assertion_ && text_.ends_with('$');
      }
      return first;
    }
    Nfa::Part all{nfa_.add(), nfa_.add()};
    nfa_.either(all, first);
    while (take('|')) nfa_.either(all, sequence());
    --depth_;
    return all;
  }
  Nfa::Part sequence() {
    Nfa::Part all = nfa_.empty();
    while (more() && text_[at_] != '|' && text_[at_] != ')') nfa_.append(all, repeated());
    return all;
  }
  uint32_t number() {
    if (!more() || text_[at_] < '0' || text_[at_] > '9') refuse("a number missing");
    uint32_t value = 0;
    for (; more() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_)
      if ((value = value * 10 + static_cast<uint32_t>(text_[at_] - '0')) > nfa_.limits.nodes)
        refuse("more nodes than the limit: too many repeats");
    return value;
  }
  bool begins_count(std::string_view begin = "{") const {
    const std::string_view rest = text_.substr(at_);
    return rest.starts_with(begin) && rest.size() > begin.size() && rest[begin.size()] >= '0' && rest[begin.size()] <= '9';
  }
  Nfa::Part repeated() {
    const Nfa::Part part = atom();
    uint32_t least = 1, most = 1;
    if (take('*')) least = 0, most = Nfa::none;
    else if (take('+')) most = Nfa::none;
    else if (take('?')) least = 0;
    else if (begins_count()) {
      ++at_;
      least = most = number();
      if (take(',')) most = more() && text_[at_] == '}' ? Nfa::none : number();
      if (!take('}') || most < least) refuse("a wrong {m,n}");
    } else {
      if (begins_count("{,")) refuse("a {,n}, which others read as {0,n} or as it stands: say {0,n} or \\{");
      return part;
    }
    take('?');  // a lazy repeat matches the same whole texts
    if (more() && (text_[at_] == '+' || text_[at_] == '*' || text_[at_] == '?' || begins_count())) refuse("a repeat of a repeat");
    if (assertion_) refuse("a repeated ^ or $");
    return nfa_.repeat(part, least, most);
  }
  uint32_t hex(unsigned digits) {
    const std::optional<uint32_t> value = read_hex(text_, at_, digits);
    if (!value) refuse("a hexadecimal digit missing");
    return *value;
  }
  uint32_t code_of_u() {
    if (take('{')) {
      uint32_t value = 0;
      do value = value * 16 + hex(1); while (value <= code_point_max && !take('}'));
      if (value > code_point_max) refuse("no code point");
      return value;
    }
    const uint32_t high = hex(4);
    if (high < 0xD800 || high > 0xDBFF || !ahead("\\u")) return high;
    at_ += 2;
    const uint32_t low = hex(4);
    if (low < 0xDC00 || low > 0xDFFF) refuse("half a surrogate pair");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  void property(CharClass& out, bool negated) {
    const size_t end = text_.find('}', at_);
    if (!take('{') || end == std::string_view::npos) refuse("an open \\p");
    const std::string_view name = text_.substr(at_, end - at_);
    const bool letter = name == "L" || name == "Letter", number = name == "N" || name == "Number";
    if (!letter && !number) refuse("a property other than L and N");
    at_ = end + 1;
    CharClass set(nfa_.memory);
    for (uint32_t code = 0; code < unicode::class_limit; ++code)
      if (unicode::kind(code) == (letter ? unicode::Kind::letter : unicode::Kind::number)) {
        if (set.ranges.empty() || set.ranges.back().high + 1 != code) set.add(code, code);
        else set.ranges.back().high = code;
      }
    if (negated) set.invert();
    out.add(set);
  }
  // After the backslash; true where it is one character.
  bool escape(CharClass& out) {
    if (!more()) refuse("a lone backslash");
    const char c = text_[at_++], lower = static_cast<char>(c | 0x20);
    const auto one = [&](uint32_t code) { return out.add(code, code), true; };
    if (c == 'n') return one('\n');
    if (c == 't') return one('\t');
    if (c == 'r') return one('\r');
    if (c == 'f') return one('\f');
    if (c == 'v') return one('\v');
    if (c == '0') return one(0);
    if (c == 'x') return one(hex(2));
    if (c == 'u') return one(code_of_u());
    if (lower == 'p') return property(out, c == 'P'), false;
    if (c == 'c' && more() && ((text_[at_] | 0x20) >= 'a' && (text_[at_] | 0x20) <= 'z'))
      return one(static_cast<uint32_t>(text_[at_++] & 31));
    CharClass set(nfa_.memory);
    if (lower == 'd') set.add('0', '9');
    else if (lower == 'w') { set.add('0', '9'); set.add('a', 'z'); set.add('A', 'Z'); set.add('_', '_'); }
    else if (lower == 's') for (const auto& [low, high] : white) set.add(low, high);
    else if (c > ' ' && c < 127 && !(lower >= 'a' && lower <= 'z') && !(c >= '0' && c <= '9')) return one(static_cast<uint32_t>(c));
    else { --at_; refuse("an unknown escape"); }
    if (c == 'D' || c == 'W' || c == 'S') set.invert();
    out.add(set);
    return false;
  }
  bool one_of_class(CharClass& out) {
    if (!more()) refuse("an open class");
    if (ahead("\\b")) {
      at_ += 2;
      out.add('\b', '\b');
      return true;
    }
    if (take('\\')) return escape(out);
    const uint32_t code = read_code_point(text_, at_, document_);
    out.add(code, code);
    return true;
  }
  void class_items(CharClass& set) {
    const bool negated = take('^');
    if (more() && text_[at_] == ']') refuse("an empty class");
    while (!take(']')) {
      const bool single = one_of_class(set);
      if (at_ + 1 >= text_.size() || text_[at_] != '-' || text_[at_ + 1] == ']') continue;
      ++at_;
      CharClass end(nfa_.memory);
      if (!one_of_class(end) || !single) refuse("a range between classes");
      CharClass::Range& range = set.ranges.back();
      if (range.low > end.ranges[0].low) refuse("a range that runs backwards");
      range.high = end.ranges[0].low;
    }
    if (negated) set.invert();
  }
  Nfa::Part of(CharClass& set) {
    set.sort();
    if (set.ranges.empty()) refuse("a class that holds nothing");
    return nfa_.of(set);
  }
  Nfa::Part group() {
    if (ahead("?<") && !ahead("?<=") && !ahead("?<!")) {
      const size_t end = text_.find('>', at_);
      if (end == std::string_view::npos) refuse("an open name");
      at_ = end + 1;
    } else if (take('?') && !take(':')) {
      refuse("a group of a kind that is not supported");
    }
    const Nfa::Part part = either();
    if (!take(')')) refuse("an open group");
    return part;
  }
  Nfa::Part assertion(Nfa::Kind kind) {
    assertion_ = true;
    const bool is_begin = kind == Nfa::Kind::begin;
    (is_begin ? has_begin : has_end) = true;
    const uint32_t after = nfa_.add();
    return {(is_begin ? from_begin_ : to_end_) ? nfa_.add({after, Nfa::none, kind}) : nfa_.add(), after};
  }
  Nfa::Part atom() {
    assertion_ = false;
    if (take('(')) {
      const Nfa::Part part = group();
      assertion_ = false;
      return part;
    }
    if (take('^')) return assertion(Nfa::Kind::begin);
    if (take('$')) return assertion(Nfa::Kind::finish);
    CharClass set(nfa_.memory);
    if (take('.')) {
      set.add('\n', '\n');
      set.invert();
    } else if (take('[')) {
      class_items(set);
    } else if (take('\\')) {
      escape(set);
    } else {
      if (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?' || begins_count()) refuse("a repeat of nothing");
      const uint32_t code = read_code_point(text_, at_, document_);
      set.add(code, code);
    }
    return of(set);
  }

  Nfa& nfa_;
  const std::string_view text_, document_;
  const bool from_begin_, to_end_;
  size_t at_ = 0;
  uint32_t depth_ = 0;
  bool assertion_ = false;  // the last atom takes no text
};

}  // namespace

std::optional<uint32_t> read_hex(std::string_view text, size_t& at, unsigned digits) {
  uint32_t value = 0;
  for (unsigned i = 0; i < digits; ++i) {
    const char c = at < text.size() ? text[at++] : ' ';
    const char lower = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') value = value * 16 + static_cast<uint32_t>(c - '0');
    else if (lower >= 'a' && lower <= 'f') value = value * 16 + static_cast<uint32_t>(lower - 'a' + 10);
    else return std::nullopt;
  }
  return value;
}

uint32_t read_code_point(std::string_view text, size_t& at, std::string_view document) {
  const Sequence sequence = sequence_at(text.substr(at));
  if (!sequence.valid) base::fail_at(GPTQ_E_INVALID_ARGUMENT, at, document, ": bad UTF-8 at ", at);
  const uint32_t code = character_at(text.data() + at).code;
  at += sequence.bytes;
  return code;
}

uint32_t add_regex(Nfa& nfa, std::string_view pattern, bool search, std::string_view document) {
  const uint32_t rule = nfa.add_rule();
  bool has_begin = false, has_end = false, only_at_begin = false, only_at_end = false;
  const auto parse = [&](bool from_begin, bool to_end) {
    Parser parser(nfa, pattern, document, from_begin, to_end);
    const Nfa::Part part = parser.whole();
    has_begin = parser.has_begin;
    has_end = parser.has_end;
    only_at_begin = parser.only_at_begin;
    only_at_end = parser.only_at_end;
    return part;
  };
  const Nfa::Part first = parse(true, true);
  if (!search) {
    nfa.set_rule(rule, first);
    return rule;
  }
  // Once for each way in which ^ and $ can hold or not, with text around where they do not.
  Nfa::Part all{nfa.add(), nfa.add()};
  for (const bool from_begin : {true, false})
    for (const bool to_end : {true, false}) {
      if ((from_begin ? !has_begin : only_at_begin) || (to_end ? !has_end : only_at_end)) continue;
      Nfa::Part part = nfa.empty();
      if (!from_begin) nfa.append(part, nfa.anything());
      nfa.append(part, (from_begin || !has_begin) && (to_end || !has_end) ? first : parse(from_begin, to_end));
      if (!to_end) nfa.append(part, nfa.anything());
      nfa.either(all, part);
    }
  nfa.set_rule(rule, all);
  return rule;
}

}  // namespace gptq::text::constraint
