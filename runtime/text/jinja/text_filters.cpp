// SPDX-License-Identifier: Apache-2.0
// Filters on text and numbers, and tojson.
#include <charconv>
#include <cmath>

#include "text/jinja/native.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/json.h"

namespace gptq::text::jinja {
namespace {

Value text_of(Call& c) { return to_string(c.heap, c.self); }
Value plain(Value v) {
  v.safe = false;
  return v;
}

template <Case to>
Value cased(Call& c) { return change_case(c.heap, text_of(c), to); }

Value trim(Call& c) {
  if (!c.argument[0] || c.argument[0]->is(Kind::none)) return strip(text_of(c), Side::both);
  return strip(c.heap, text_of(c), c.string(0, "").view(), Side::both);
}

Value replace(Call& c) {
  const bool all = !c.argument[2] || c.argument[2]->is(Kind::none);
  const Value from = to_string(c.heap, *c.argument[0]), to = to_string(c.heap, *c.argument[1]);
  return replace(c.heap, plain(text_of(c)), from, to, all ? -1 : c.integer(2, -1));
}

Value indent(Call& c) {
  if (!c.self.is(Kind::string)) c.fail("needs a string, not '", kind_name(c.self), "'");
  const bool first = c.flag(1, false), blank = c.flag(2, false);
  const Value margin = c.argument[0] && c.argument[0]->is(Kind::string) ? *c.argument[0]
                                                                        : repeat(c.heap, make_string(c.heap, " ", true), c.integer(0, 4));
  ArrayBuilder builder(c.heap);
  // As if a line end followed: an empty text is one empty line, a last line end begins no new one.
  split_lines(c.heap, concat(c.heap, c.self, make_string(c.heap, "\n", true)), false, builder);
  const Value lines = builder.finish(Kind::list);
  Writer out(c.heap);
  if (first) out.add(margin);
  for (uint32_t i = 0; i < lines.array->size; ++i) {
    const Value& line = lines.array->items[i];
    if (i) out.add("\n", true);
    if (i && (blank || line.size)) out.add(margin);
    out.add(line);
  }
  return out.finish(c.self.safe);
}

Value center(Call& c) {
  const Value text = text_of(c);
  const int64_t n = length(c.heap, text), width = c.integer(0, 80);
  if (width <= n) return text;
  const int64_t space = width - n, left = space / 2 + (space & width & 1);
  const Value one = make_string(c.heap, " ", true);
  return concat(c.heap, concat(c.heap, repeat(c.heap, one, left), text), repeat(c.heap, one, space - left));
}

Value safe(Call& c) {
  Value v = text_of(c);
  v.safe = true;
  return v;
}

Value escaped(Call& c) { return escape(c.heap, text_of(c)); }
Value string(Call& c) { return text_of(c); }

Value default_value(Call& c) {
  const bool use = c.self.is(Kind::undefined) || (c.flag(1, false) && !truth(c.self));
  if (!use) return c.self;
  return c.argument[0] ? *c.argument[0] : Value::of(Kind::string);
}

Value tojson(Call& c) {
  JsonStyle style;
  style.ascii = c.flag(0, false);
  style.sorted = c.flag(3, false);
  Value indent;
  if (c.argument[1] && !c.argument[1]->is(Kind::none)) {
    indent = c.argument[1]->is(Kind::string) ? *c.argument[1] : repeat(c.heap, make_string(c.heap, " ", true), c.integer(1, 0));
    style.lines = true;
    style.indent = indent.view();
    style.comma = ",";
  }
  if (c.argument[2] && !c.argument[2]->is(Kind::none)) {
    const std::span<const Value> pair = iterate(c.heap, *c.argument[2]);
    if (pair.size() != 2 || !pair[0].is(Kind::string) || !pair[1].is(Kind::string)) c.fail("separators must be two strings");
    style.comma = pair[0].view();
    style.colon = pair[1].view();
  }
  return write_json(c.heap, c.self, style);
}

void require_defined(Call& c) {
  if (c.self.is(Kind::undefined)) c.fail("'", c.self.view(), "' is undefined");
}

// int() and float() of text: white space around, a sign, digits. What Python also reads (1_000, other digits) is refused.
bool read_number(Call& c, std::string_view text, Value& out, bool whole) {
  for (const char x : text)
    if (x == '_' || static_cast<unsigned char>(x) >= 0x80) c.fail("the text '", text, "' is outside the supported subset");
  if (!text.empty() && text[0] == '+') {
    text.remove_prefix(1);
    if (!text.empty() && text[0] == '-') return false;
  }
  if (text.empty()) return false;
  const char* end = text.data() + text.size();
  out = Value::of_int(0);
  if (whole) {
    const auto [stop, error] = std::from_chars(text.data(), end, out.integer);
    if (error == std::errc::result_out_of_range) c.fail("the integer '", text, "' is beyond 64 bits");
    return error == std::errc() && stop == end;
  }
  out.kind = Kind::number;
  const auto [stop, error] = std::from_chars(text.data(), end, out.number);
  if (error == std::errc::result_out_of_range) c.fail("the number '", text, "' is out of range");
  return error == std::errc() && stop == end && text.find('(') == text.npos;
}

Value to_integer(Call& c) {
  require_defined(c);
  if (c.integer(1, 10) != 10) c.fail("another base than 10 is outside the supported subset");
  const Value otherwise = c.argument[0] ? *c.argument[0] : Value::of_int(0);
  if (c.self.is_integer()) return Value::of_int(c.self.as_integer());
  Value v = c.self;
  if (v.is(Kind::string)) {
    const std::string_view text = strip(v, Side::both).view();
    if (read_number(c, text, v, true)) return v;
    if (!read_number(c, text, v, false)) return otherwise;
  }
  if (!v.is(Kind::number) || !std::isfinite(v.number)) return otherwise;
  if (std::fabs(v.number) >= 9.2e18) c.fail("an integer beyond 64 bits");
  return Value::of_int(static_cast<int64_t>(v.number));
}

Value to_number(Call& c) {
  require_defined(c);
  const Value otherwise = c.argument[0] ? *c.argument[0] : Value::of_number(0);
  if (c.self.is_numeric()) return Value::of_number(c.self.as_number());
  Value v;
  if (c.self.is(Kind::string) && read_number(c, strip(c.self, Side::both).view(), v, false)) return v;
  return otherwise;
}

Value absolute(Call& c) {
  if (!c.self.is_numeric()) c.fail("bad operand type: '", kind_name(c.self), "'");
  if (c.self.is(Kind::number)) return Value::of_number(std::fabs(c.self.number));
  return c.self.as_integer() < 0 ? negate(c.heap, c.self) : Value::of_int(c.self.as_integer());
}

// Python rounds the exact binary value half to even; to_chars does the same for a number of decimals.
Value round(Call& c) {
  if (!c.self.is_numeric()) c.fail("needs a number, not '", kind_name(c.self), "'");
  const int64_t digits = c.integer(0, 0);
  if (digits < 0 || digits > 15) c.fail("precisions other than 0 to 15 are outside the supported subset");
  if (c.string(1, "common").view() != "common") c.fail("methods other than 'common' are outside the supported subset");
  if (c.self.is_integer()) return Value::of_int(c.self.as_integer());
  if (!std::isfinite(c.self.number) || std::fabs(c.self.number) >= 1e15) return c.self;
  char buffer[64];
  Value v = Value::of_number(0);
  const char* end = std::to_chars(buffer, buffer + sizeof buffer, c.self.number, std::chars_format::fixed, static_cast<int>(digits)).ptr;
  std::from_chars(buffer, end, v.number);
  return v;
}

constexpr Native of_texts[] = {
    {"tojson", tojson, 0, false, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", trim, 0, false, {"chars"}},
    {"upper", cased<Case::upper>},
    {"lower", cased<Case::lower>},
    {"title", cased<Case::words>},
    {"capitalize", cased<Case::capitalize>},
    {"replace", replace, 2, false, {"old", "new", "count"}},
    {"indent", indent, 0, false, {"width", "first", "blank"}},
    {"center", center, 0, false, {"width"}},
    {"safe", safe},
    {"escape", escaped},
    {"e", escaped},
    {"string", string},
    {"default", default_value, 0, false, {"default_value", "boolean"}},
    {"d", default_value, 0, false, {"default_value", "boolean"}},
    {"int", to_integer, 0, false, {"default", "base"}},
    {"float", to_number, 0, false, {"default"}},
    {"abs", absolute},
    {"round", round, 0, false, {"precision", "method"}},
};

}  // namespace

std::span<const Native> text_filters() { return of_texts; }

}  // namespace gptq::text::jinja
