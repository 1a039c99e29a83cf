// SPDX-License-Identifier: Apache-2.0
// Classes nest and intersect (&&), as in Ruby.
#include "converter/tokenizer/regex/class_syntax.h"

#include "base/failure.h"
#include "text/utf8.h"

namespace gptq::convert::regex {
namespace {

std::optional<uint32_t> control(uint32_t c) {
  switch (c) {
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'a': return '\a';
    case 'e': return 0x1B;
    default: return {};
  }
}

std::optional<Set> shorthand(uint32_t c) {
  Set out;
  switch (c | 0x20) {
    case 's': out = space_set(); break;
    case 'd': out = *named_set("Nd"); break;
    case 'w':
      out = word_set();
      for (const uint32_t also : {0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE}) out.add({also, also});  // as Oniguruma has it
      break;
    case 'h': out = *named_set("xdigit"); break;
    default: return {};
  }
  return c & 0x20 ? out : out.inverted();
}

Set property(Input& in, bool inverted) {
  if (!in.take('{')) in.refuse("\\p without {");
  std::string_view name = in.up_to('}');
  if (name.starts_with('^')) {
    name.remove_prefix(1);
    inverted = !inverted;
  }
  const std::optional<Set> set = named_set(name);
  if (!set) in.refuse(name);
  return inverted ? set->inverted() : *set;
}

// [:name:], behind "[:".
Set posix(Input& in) {
  const bool inverted = in.take('^');
  const std::optional<Set> set = named_set(in.up_to(':'));
  if (!set || !in.take(']')) in.refuse("an unknown class in [: :]");
  return inverted ? set->inverted() : *set;
}

bool is_single(const Set& set) { return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last; }

// The next member of a class: a set, or one character, which a range may begin with.
Set member(Input& in, bool ignore_case) {
  if (in.take("[:")) return posix(in);
  if (in.take('[')) return read_class(in, ignore_case);
  const uint32_t c = in.next();
  if (c == '\\') {
    if (in.take('b')) return {8, 8};
    return read_escape(in);
  }
  return {c, c};
}

}  // namespace

Input::Input(std::string_view pattern) : pattern_(pattern) {
  if (text::valid_prefix(pattern) != pattern.size()) base::fail(GPTQ_E_FORMAT, "tokenizer: a splitting pattern is not UTF-8");
}

uint32_t Input::peek() const { return at_end() ? 0 : text::character_at(pattern_.data() + at_).code; }

uint32_t Input::next() {
  if (at_end()) refuse("an early end");
  const text::Character c = text::character_at(pattern_.data() + at_);
  at_ += c.bytes;
  return c.code;
}

bool Input::take(char c) { return take(std::string_view(&c, 1)); }

bool Input::take(std::string_view text) {
  if (!pattern_.substr(at_).starts_with(text)) return false;
  at_ += text.size();
  return true;
}

std::optional<uint32_t> Input::number() {
  if (peek() < '0' || peek() > '9') return {};
  uint32_t value = 0;
  while (peek() >= '0' && peek() <= '9' && value < 100'000) value = value * 10 + (next() - '0');
  return value;
}

uint32_t Input::hex(size_t digits_max) {
  uint32_t value = 0;
  for (size_t i = 0; i < digits_max; ++i) {
    const uint32_t c = peek(), low = c | 0x20;
    if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
    else if (low >= 'a' && low <= 'f') value = value * 16 + (low - 'a' + 10);
    else break;
    next();
  }
  if (value >= code_end) refuse("a character beyond Unicode");
  return value;
}

std::string_view Input::up_to(char end) {
  const size_t at = pattern_.find(end, at_);
  if (at == pattern_.npos) refuse("an early end");
  const std::string_view out = pattern_.substr(at_, at - at_);
  at_ = at + 1;
  return out;
}

void Input::refuse(std::string_view what) const {
  base::fail(GPTQ_E_UNSUPPORTED, "tokenizer: splitting pattern ", pattern_, ": at byte ", at_, ": ", what, " is not supported");
}

Set read_escape(Input& in) {
  const uint32_t c = in.next();
  if (c == 'p' || c == 'P') return property(in, c == 'P');
  if (const auto set = shorthand(c)) return *set;
  if (const auto code = control(c)) return {*code, *code};
  if (c == 'u') {
    const uint32_t code = in.hex(4);
    return {code, code};
  }
  if (c == 'x') {
    const bool braces = in.take('{');
    const uint32_t code = in.hex(braces ? 8 : 2);
    if (braces && !in.take('}')) in.refuse("\\x{ without }");
    return {code, code};
  }
  const bool letter_or_digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  if (letter_or_digit) in.refuse("such an escape");
  return {c, c};
}

Set read_class(Input& in, bool ignore_case) {
  const bool inverted = in.take('^');
  Set out, part;
  bool intersects = false;
  const auto finish = [&] {
    out = intersects ? out.intersected(part) : part;
    part = {};
    intersects = true;
  };
  for (bool first = true; first || !in.take(']'); first = false) {
    if (in.take("&&")) {
      finish();
      continue;
    }
    const Set low = member(in, ignore_case);
    const size_t place = in.place();
    if (!is_single(low) || !in.take('-')) {
      part.add(low);
      continue;
    }
    if (in.peek() == ']' || in.peek() == '[') {  // the hyphen stands for itself
      in.go_to(place);
      part.add(low);
      continue;
    }
    const Set high = member(in, ignore_case);
    const uint32_t from = low.ranges()[0].first;
    if (!is_single(high) || high.ranges()[0].first < from) in.refuse("such a range");
    part.add({from, high.ranges()[0].first});
  }
  finish();
  if (ignore_case) out = without_case(out);
  return inverted ? out.inverted() : out;
}

}  // namespace gptq::convert::regex
