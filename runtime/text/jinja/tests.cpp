// SPDX-License-Identifier: Apache-2.0
// The tests that follow `is`.
#include <algorithm>

#include "text/jinja/native.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"

namespace gptq::text::jinja {
namespace {

template <Kind kind>
Value is_kind(Call& c) { return Value::of_bool(c.self.is(kind)); }

template <bool wanted>
Value is_boolean(Call& c) { return Value::of_bool(c.self.is(Kind::boolean) && c.self.boolean == wanted); }

template <Op op>
Value compares(Call& c) { return apply(c.heap, op, c.self, *c.argument[0]); }

Value is_defined(Call& c) { return Value::of_bool(!c.self.is(Kind::undefined)); }
Value is_number(Call& c) { return Value::of_bool(c.self.is_numeric()); }
Value is_escaped(Call& c) { return Value::of_bool(c.self.safe); }
Value is_callable(Call& c) { return Value::of_bool(c.self.is(Kind::function) || c.self.is(Kind::undefined)); }

Value is_iterable(Call& c) {
  const Kind k = c.self.kind;
  return Value::of_bool(k == Kind::undefined || k == Kind::string || c.self.is_array() || k == Kind::dict || k == Kind::loop);
}

Value is_sequence(Call& c) {
  const Kind k = c.self.kind;
  return Value::of_bool(k == Kind::undefined || k == Kind::string || c.self.is_sequence() || k == Kind::dict);
}

Value is_same(Call& c) {
  const Value &a = c.self, &b = *c.argument[0];
  const auto single = [](const Value& v) { return v.is(Kind::none) || v.is(Kind::boolean); };
  if (single(a) || single(b)) return Value::of_bool(a.kind == b.kind && equal(c.heap, a, b));
  c.fail("identity of '", kind_name(a), "' is outside the supported subset");
}

int64_t modulo(Call& c, const Value& by) {
  const Value r = apply(c.heap, Op::modulo, c.self, by);
  return r.is_integer() ? r.as_integer() : r.number != 0 ? 2 : 0;
}
Value is_odd(Call& c) { return Value::of_bool(modulo(c, Value::of_int(2)) == 1); }
Value is_even(Call& c) { return Value::of_bool(modulo(c, Value::of_int(2)) == 0); }
Value is_divisible(Call& c) { return Value::of_bool(modulo(c, *c.argument[0]) == 0); }

template <char first, char last>
Value has_case(Call& c) {
  constexpr char other_first = first ^ 32, other_last = last ^ 32;
  bool cased = false;
  for (const char x : to_string(c.heap, c.self).view()) {
    if (static_cast<unsigned char>(x) >= 0x80) c.fail("text that is not ASCII is outside the supported subset");
    if (x >= other_first && x <= other_last) return Value::of_bool(false);
    cased = cased || (x >= first && x <= last);
  }
  return Value::of_bool(cased);
}

Value is_filter(Call& c) {
  constexpr std::string_view unsupported[] = {"attr",      "batch",  "filesizeformat", "format",    "groupby",
                                              "pprint",    "random", "slice",          "striptags", "truncate",
                                              "urlencode", "urlize", "wordcount",      "wordwrap",  "xmlattr"};
  const std::string_view name = c.self.is(Kind::string) ? c.self.view() : std::string_view();
  for (const std::string_view u : unsupported)
    if (u == name) c.fail("the filter '", name, "' is outside the supported subset");
  return Value::of_bool(find_filter(name) != nullptr);
}

Value is_test(Call& c) { return Value::of_bool(c.self.is(Kind::string) && find_test(c.self.view()) != nullptr); }

constexpr Native tests[] = {
    {"defined", is_defined},
    {"undefined", is_kind<Kind::undefined>},
    {"none", is_kind<Kind::none>},
    {"boolean", is_kind<Kind::boolean>},
    {"integer", is_kind<Kind::integer>},
    {"float", is_kind<Kind::number>},
    {"number", is_number},
    {"string", is_kind<Kind::string>},
    {"mapping", is_kind<Kind::dict>},
    {"iterable", is_iterable},
    {"sequence", is_sequence},
    {"callable", is_callable},
    {"escaped", is_escaped},
    {"true", is_boolean<true>},
    {"false", is_boolean<false>},
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible, 1, false, {"num"}},
    {"sameas", is_same, 1, false, {"other"}},
    {"lower", has_case<'a', 'z'>},
    {"upper", has_case<'A', 'Z'>},
    {"filter", is_filter},
    {"test", is_test},
    {"in", compares<Op::in>, 1, false, {"seq"}},
    {"eq", compares<Op::equal>, 1, false, {"b"}},
    {"equalto", compares<Op::equal>, 1, false, {"b"}},
    {"==", compares<Op::equal>, 1, false, {"b"}},
    {"ne", compares<Op::not_equal>, 1, false, {"b"}},
    {"!=", compares<Op::not_equal>, 1, false, {"b"}},
    {"lt", compares<Op::less>, 1, false, {"b"}},
    {"lessthan", compares<Op::less>, 1, false, {"b"}},
    {"<", compares<Op::less>, 1, false, {"b"}},
    {"le", compares<Op::less_equal>, 1, false, {"b"}},
    {"<=", compares<Op::less_equal>, 1, false, {"b"}},
    {"gt", compares<Op::greater>, 1, false, {"b"}},
    {"greaterthan", compares<Op::greater>, 1, false, {"b"}},
    {">", compares<Op::greater>, 1, false, {"b"}},
    {"ge", compares<Op::greater_equal>, 1, false, {"b"}},
    {">=", compares<Op::greater_equal>, 1, false, {"b"}},
};

}  // namespace

const Native* find_test(std::string_view name) { return find_native(tests, name); }

}  // namespace gptq::text::jinja
