// SPDX-License-Identifier: Apache-2.0
// Methods of strings, dicts, lists and of `loop`: those that change nothing.
#include <algorithm>
#include <charconv>

#include "text/jinja/native.h"
#include "text/jinja/print.h"

namespace gptq::text::jinja {
namespace {

template <Case to>
Value self_cased(Call& c) { return change_case(c.heap, c.self, to); }

template <Side side>
Value stripped(Call& c) {
  if (!c.argument[0] || c.argument[0]->is(Kind::none)) return strip(c.self, side);
  return strip(c.heap, c.self, c.string(0, "").view(), side);
}

bool at_spaces(const Call& c) { return !c.argument[0] || c.argument[0]->is(Kind::none); }

Value split_first(Call& c) {
  if (at_spaces(c)) return split(c.heap, c.self, c.integer(1, -1));
  return split(c.heap, c.self, c.string(0, ""), c.integer(1, -1));
}

Value split_back(Call& c) {
  if (!at_spaces(c)) return split_last(c.heap, c.self, c.string(0, ""), c.integer(1, -1));
  if (c.integer(1, -1) >= 0) c.fail("a limit without a separator is outside the supported subset");
  return split(c.heap, c.self, -1);
}

Value split_at_lines(Call& c) {
  ArrayBuilder out(c.heap);
  split_lines(c.heap, c.self, c.flag(0, false), out);
  return out.finish(Kind::list);
}

template <bool at_end>
Value has_affix(Call& c) {
  if (c.argument[1]) c.fail("a start position is outside the supported subset");
  const std::string_view text = c.self.view();
  const auto matches = [&](const Value& v) {
    if (!v.is(Kind::string)) c.fail("needs a string or a tuple of strings");
    c.heap.spend_bytes(v.size);
    return at_end ? text.ends_with(v.view()) : text.starts_with(v.view());
  };
  const Value& what = *c.argument[0];
  if (!what.is(Kind::tuple)) return Value::of_bool(matches(what));
  return Value::of_bool(std::any_of(what.array->items, what.array->items + what.array->size, matches));
}

template <bool at_end>
Value without_affix(Call& c) {
  const Value affix = c.string(0, "");
  const std::string_view text = c.self.view();
  if (!(at_end ? text.ends_with(affix.view()) : text.starts_with(affix.view()))) return c.self;
  return slice(c.self, at_end ? 0 : affix.size, c.self.size - affix.size);
}

Value replaced(Call& c) {
  if (c.self.safe) c.fail("replacing in text marked safe is outside the supported subset");
  return replace(c.heap, c.self, c.string(0, ""), c.string(1, ""), c.integer(2, -1));
}

template <bool from_end>
Value position(Call& c) {
  const Value what = c.string(0, "");
  const size_t at = from_end ? find_last(c.heap, c.self.view(), what.view()) : find(c.heap, c.self.view(), what.view());
  if (at == not_found) return Value::of_int(-1);
  c.heap.spend_bytes(at);
  return Value::of_int(static_cast<int64_t>(count_code_points(c.self.view().substr(0, at))));
}

Value position_or_fail(Call& c) {
  const Value at = position<false>(c);
  if (at.integer < 0) c.fail("substring not found");
  return at;
}

Value occurrences(Call& c) { return Value::of_int(static_cast<int64_t>(count(c.heap, c.self.view(), c.string(0, "").view()))); }

template <bool from_end>
Value partition(Call& c) {
  const Value what = c.string(0, "");
  if (what.size == 0) c.fail("empty separator");
  const size_t at = from_end ? find_last(c.heap, c.self.view(), what.view()) : find(c.heap, c.self.view(), what.view());
  Value parts[3] = {Value::of(Kind::string), Value::of(Kind::string), Value::of(Kind::string)};
  parts[from_end ? 2 : 0] = c.self;
  if (at != not_found) {
    parts[0] = slice(c.self, 0, at);
    parts[1] = slice(c.self, at, what.size);
    parts[2] = slice(c.self, at + what.size, c.self.size - at - what.size);
  }
  return make_array(c.heap, Kind::tuple, parts);
}

Value joined(Call& c) {
  if (c.self.safe) c.fail("joining by text marked safe is outside the supported subset");
  Writer out(c.heap);
  bool any = false;
  for (const Value& v : iterate(c.heap, *c.argument[0])) {
    if (!v.is(Kind::string)) c.fail("needs strings, not '", kind_name(v), "'");
    c.heap.spend(1);
    if (std::exchange(any, true)) out.add(c.self);
    out.add(v);
  }
  return out.finish();
}

// {} {0} {name}; conversions, formats and attributes are refused.
Value format(Call& c) {
  if (c.self.safe) c.fail("formatting text marked safe is outside the supported subset");
  const std::string_view text = c.self.view();
  Writer out(c.heap);
  size_t automatic = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '{' && text[i] != '}') {
      out.add(c.self, i, 1);
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == text[i]) {
      out.add(c.self, i++, 1);
      continue;
    }
    const size_t end = text.find('}', i);
    if (text[i] == '}' || end == text.npos) c.fail("a single '", text.substr(i, 1), "' in the format");
    const std::string_view field = text.substr(i + 1, end - i - 1);
    if (field.find_first_of("!:.[{") != field.npos) c.fail("the field {", field, "} is outside the supported subset");
    size_t index = automatic;
    const bool numbered = field.empty() ||
                          std::from_chars(field.data(), field.data() + field.size(), index).ptr == field.data() + field.size();
    if (field.empty()) ++automatic;
    const Value* v = !numbered ? c.find_named(field) : index < c.positional.size() ? &c.positional[index] : nullptr;
    if (!v) c.fail("no argument for {", field, "}");
    out.add(to_string(c.heap, *v));
    i = end;
  }
  return out.finish();
}

template <char from, char to, char from2, char to2>
Value all_in(Call& c) {
  for (const char x : c.self.view()) {
    if (static_cast<unsigned char>(x) >= 0x80) c.fail("text that is not ASCII is outside the supported subset");
    const char low = static_cast<char>(x | 32);
    if (!(x >= from && x <= to) && !(low >= from2 && low <= to2)) return Value::of_bool(false);
  }
  return Value::of_bool(c.self.size > 0);
}

Value all_spaces(Call& c) { return Value::of_bool(c.self.size > 0 && strip(c.self, Side::both).size == 0); }

template <bool upper>
Value has_case(Call& c) { return invoke({c.heap, *find_test(upper ? "upper" : "lower"), c.self}); }

Value same(Call& c) { return c.self; }
Value unsupported(Call& c) { c.fail("this method is outside the supported subset"); }

constexpr Native string_methods[] = {
    {"upper", self_cased<Case::upper>},
    {"lower", self_cased<Case::lower>},
    {"title", self_cased<Case::title>},
    {"capitalize", self_cased<Case::capitalize>},
    {"strip", stripped<Side::both>, 0, false, {"chars"}},
    {"lstrip", stripped<Side::left>, 0, false, {"chars"}},
    {"rstrip", stripped<Side::right>, 0, false, {"chars"}},
    {"split", split_first, 0, false, {"sep", "maxsplit"}},
    {"rsplit", split_back, 0, false, {"sep", "maxsplit"}},
    {"splitlines", split_at_lines, 0, false, {"keepends"}},
    {"startswith", has_affix<false>, 1, false, {"prefix", "start"}},
    {"endswith", has_affix<true>, 1, false, {"suffix", "start"}},
    {"removeprefix", without_affix<false>, 1, false, {"prefix"}},
    {"removesuffix", without_affix<true>, 1, false, {"suffix"}},
    {"replace", replaced, 2, false, {"old", "new", "count"}},
    {"find", position<false>, 1, false, {"sub"}},
    {"rfind", position<true>, 1, false, {"sub"}},
    {"index", position_or_fail, 1, false, {"sub"}},
    {"count", occurrences, 1, false, {"sub"}},
    {"partition", partition<false>, 1, false, {"sep"}},
    {"rpartition", partition<true>, 1, false, {"sep"}},
    {"join", joined, 1, false, {"iterable"}},
    {"format", format, 0, true},
    {"isdigit", all_in<'0', '9', '1', '0'>},
    {"isdecimal", all_in<'0', '9', '1', '0'>},
    {"isnumeric", all_in<'0', '9', '1', '0'>},
    {"isalpha", all_in<'1', '0', 'a', 'z'>},
    {"isalnum", all_in<'0', '9', 'a', 'z'>},
    {"isspace", all_spaces},
    {"islower", has_case<false>},
    {"isupper", has_case<true>},
    {"casefold", unsupported, 0, true},
    {"center", unsupported, 0, true},
    {"encode", unsupported, 0, true},
    {"expandtabs", unsupported, 0, true},
    {"format_map", unsupported, 0, true},
    {"isascii", unsupported, 0, true},
    {"isidentifier", unsupported, 0, true},
    {"isprintable", unsupported, 0, true},
    {"istitle", unsupported, 0, true},
    {"ljust", unsupported, 0, true},
    {"maketrans", unsupported, 0, true},
    {"rindex", unsupported, 0, true},
    {"rjust", unsupported, 0, true},
    {"swapcase", unsupported, 0, true},
    {"translate", unsupported, 0, true},
    {"zfill", unsupported, 0, true},
};

Value pairs(Call& c) {
  ArrayBuilder out(c.heap);
  for (uint32_t i = 0; i < c.self.dict->size; ++i) {
    const Value pair[] = {c.self.dict->entries[i].key, c.self.dict->entries[i].value};
    out.add(make_array(c.heap, Kind::tuple, pair));
  }
  return out.finish(Kind::view);
}

template <bool keys>
Value column(Call& c) {
  ArrayBuilder out(c.heap);
  for (uint32_t i = 0; i < c.self.dict->size; ++i) out.add(keys ? c.self.dict->entries[i].key : c.self.dict->entries[i].value);
  return out.finish(Kind::view);
}

Value get(Call& c) {
  const Value* v = c.self.dict->find(c.heap, *c.argument[0]);
  return v ? *v : c.argument[1] ? *c.argument[1] : Value::none();
}

constexpr Native dict_methods[] = {
    {"items", pairs}, {"keys", column<true>}, {"values", column<false>}, {"get", get, 1, false, {"key", "default"}}, {"copy", same},
};
// Jinja's sandbox hides what changes a value: such a name is undefined, also where the dict has a key of that name.
constexpr std::string_view hidden_dict_methods[] = {"clear", "pop", "popitem", "setdefault", "update"};

Value index_of(Call& c) {
  for (uint32_t i = 0; i < c.self.array->size; ++i)
    if (equal(c.heap, c.self.array->items[i], *c.argument[0])) return Value::of_int(i);
  c.fail("the value is not in the list");
}

Value count_of(Call& c) {
  int64_t n = 0;
  for (uint32_t i = 0; i < c.self.array->size; ++i) n += equal(c.heap, c.self.array->items[i], *c.argument[0]);
  return Value::of_int(n);
}

constexpr Native list_methods[] = {{"index", index_of, 1, false, {"value"}}, {"count", count_of, 1, false, {"value"}}, {"copy", same}};

Value cycle(Call& c) {
  if (c.positional.empty()) c.fail("no items for cycling given");
  return c.positional[(c.self.loop->done - 1) % c.positional.size()];
}

Value changed(Call& c) {
  std::pmr::vector<Value>& last = c.self.loop->last_changed;
  const bool same = last.size() == c.positional.size() && !last.empty() &&
                    std::equal(last.begin(), last.end(), c.positional.begin(),
                               [&](const Value& a, const Value& b) { return equal(c.heap, a, b); });
  last.assign(c.positional.begin(), c.positional.end());
  return Value::of_bool(!same);
}

constexpr Native loop_methods[] = {{"cycle", cycle, 0, true}, {"changed", changed, 0, true}};

}  // namespace

const Native* find_method(const Value& object, std::string_view name) {
  switch (object.kind) {
    case Kind::string: return find_native(string_methods, name);
    case Kind::dict: return find_native(dict_methods, name);
    case Kind::list: return find_native(list_methods, name);
    case Kind::tuple: return name == "copy" ? nullptr : find_native(list_methods, name);
    case Kind::loop: return find_native(loop_methods, name);
    default: return nullptr;
  }
}

bool hides_key(std::string_view name) {
  return std::find(std::begin(hidden_dict_methods), std::end(hidden_dict_methods), name) != std::end(hidden_dict_methods);
}

}  // namespace gptq::text::jinja
