// SPDX-License-Identifier: Apache-2.0
// Filters on lists and dicts. What Jinja computes lazily is computed here at once, but can be iterated only once as there.
#include <algorithm>
#include <charconv>

#include "text/jinja/native.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/sort.h"

namespace gptq::text::jinja {
namespace {

// An attribute given as "a.b.0" or as an index.
Value attribute_of(Call& c, const Value& item, const Value& path) {
  if (path.is_integer()) return get_item(c.heap, item, path);
  if (!path.is(Kind::string)) c.fail("an attribute must be a string or an integer");
  Value v = item;
  for (size_t from = 0; from <= path.size;) {
    const size_t dot = std::min(path.view().find('.', from), size_t{path.size});
    const Value part = slice(path, from, dot - from);
    Value index = Value::of_int(0);
    const char* end = part.view().data() + part.size;
    const bool number = part.size && part.view()[0] != '-' && std::from_chars(part.view().data(), end, index.integer).ptr == end;
    v = get_item(c.heap, v, number ? index : part);
    from = dot + 1;
  }
  return v;
}

// What items are ordered by: an attribute, letters without case.
Value sort_key(Call& c, const Value& item, const Value* attribute, bool case_sensitive) {
  const Value v = attribute && !attribute->is(Kind::none) ? attribute_of(c, item, *attribute) : item;
  if (attribute && attribute->is(Kind::string) && attribute->view().find(',') != std::string_view::npos)
    c.fail("several attributes are outside the supported subset");
  return case_sensitive || !v.is(Kind::string) ? v : change_case(c.heap, v, Case::lower);
}

Value items(Call& c) {
  if (c.self.is(Kind::undefined)) return make_array(c.heap, Kind::generator, {});
  if (!c.self.is(Kind::dict)) c.fail("can only get item pairs from a mapping, not '", kind_name(c.self), "'");
  const Native* method = find_method(c.self, "items");
  Value v = invoke({c.heap, *method, c.self});
  v.kind = Kind::generator;
  return v;
}

Value dictsort(Call& c) {
  if (!c.self.is(Kind::dict)) c.fail("needs a dict, not '", kind_name(c.self), "'");
  const bool case_sensitive = c.flag(0, false), reverse = c.flag(2, false);
  const std::string_view by = c.string(1, "key").view();
  if (by != "key" && by != "value") c.fail("'by' must be \"key\" or \"value\"");
  Value pairs = items(c);
  const uint32_t n = pairs.array->size;
  Entry* order = c.heap.array<Entry>(n);
  for (uint32_t i = 0; i < n; ++i)
    order[i] = {sort_key(c, pairs.array->items[i].array->items[by == "value"], nullptr, case_sensitive), pairs.array->items[i]};
  merge_sort(c.heap, order, n, [&](const Entry& a, const Entry& b) {
    return reverse ? compare(c.heap, b.key, a.key) < 0 : compare(c.heap, a.key, b.key) < 0;
  });
  ArrayBuilder out(c.heap);
  for (uint32_t i = 0; i < n; ++i) out.add(order[i].value);
  return out.finish(Kind::list);
}

Value sort(Call& c) {
  const bool reverse = c.flag(0, false), case_sensitive = c.flag(1, false);
  const std::span<const Value> values = iterate(c.heap, c.self);
  const auto n = static_cast<uint32_t>(values.size());
  Entry* order = c.heap.array<Entry>(n);
  for (uint32_t i = 0; i < n; ++i) order[i] = {sort_key(c, values[i], c.argument[2], case_sensitive), values[i]};
  merge_sort(c.heap, order, n, [&](const Entry& a, const Entry& b) {
    return reverse ? compare(c.heap, b.key, a.key) < 0 : compare(c.heap, a.key, b.key) < 0;
  });
  ArrayBuilder out(c.heap);
  for (uint32_t i = 0; i < n; ++i) out.add(order[i].value);
  return out.finish(Kind::list);
}

Value unique(Call& c) {
  ArrayBuilder out(c.heap), keys(c.heap);
  std::pmr::vector<Value> seen(c.heap.arena());
  for (const Value& v : iterate(c.heap, c.self)) {
    const Value key = sort_key(c, v, c.argument[1], c.flag(0, false));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return equal(c.heap, s, key); })) continue;
    seen.push_back(key);
    out.add(v);
  }
  return out.finish(Kind::generator);
}

template <int sign>
Value extreme(Call& c) {
  const std::span<const Value> values = iterate(c.heap, c.self);
  if (values.empty()) return Value();
  const bool case_sensitive = c.flag(0, false);
  Value best = values[0], best_key = sort_key(c, best, c.argument[1], case_sensitive);
  for (const Value& v : values.subspan(1)) {
    const Value key = sort_key(c, v, c.argument[1], case_sensitive);
    if (compare(c.heap, key, best_key) * sign <= 0) continue;
    best = v;
    best_key = key;
  }
  return best;
}

Value sum(Call& c) {
  Value total = c.argument[1] ? *c.argument[1] : Value::of_int(0);
  for (const Value& v : iterate(c.heap, c.self)) {
    const Value term = c.argument[0] && !c.argument[0]->is(Kind::none) ? attribute_of(c, v, *c.argument[0]) : v;
    if (term.is(Kind::string)) c.fail("cannot add strings");
    total = apply(c.heap, Op::add, total, term);
  }
  return total;
}

Value length(Call& c) { return Value::of_int(length(c.heap, c.self)); }

Value first(Call& c) {
  if (c.self.is(Kind::generator)) return c.self.array->taken < c.self.array->size ? c.self.array->items[c.self.array->taken++] : Value();
  const std::span<const Value> values = iterate(c.heap, c.self);
  return values.empty() ? Value() : values.front();
}

Value last(Call& c) {
  if (c.self.is(Kind::generator)) c.fail("'generator' object is not reversible");
  const std::span<const Value> values = iterate(c.heap, c.self);
  return values.empty() ? Value() : values.back();
}

Value list(Call& c) { return make_array(c.heap, Kind::list, iterate(c.heap, c.self)); }

Value reverse(Call& c) {
  if (c.self.is(Kind::generator)) c.fail("reversing a generator is outside the supported subset");
  const std::span<const Value> values = iterate(c.heap, c.self);
  if (c.self.is(Kind::string)) {
    Writer out(c.heap);
    for (size_t i = values.size(); i-- > 0;) out.add(values[i]);
    return out.finish();
  }
  ArrayBuilder out(c.heap);
  for (size_t i = values.size(); i-- > 0;) out.add(values[i]);
  return out.finish(Kind::generator);
}

Value join(Call& c) {
  const Value separator = c.argument[0] ? to_string(c.heap, *c.argument[0]) : Value::of(Kind::string);
  const bool by_attribute = c.argument[1] && !c.argument[1]->is(Kind::none);
  Writer out(c.heap);
  bool any = false;
  for (const Value& v : iterate(c.heap, c.self)) {
    c.heap.spend(1);
    if (std::exchange(any, true)) out.add(separator);
    out.add(to_string(c.heap, by_attribute ? attribute_of(c, v, *c.argument[1]) : v));
  }
  return out.finish();
}

// map('filter', arguments...) or map(attribute=..., default=...). Like select, Jinja's takes whatever is false for an empty list.
Value map(Call& c) {
  ArrayBuilder out(c.heap);
  if (!truth(c.self)) return out.finish(Kind::generator);
  if (c.positional.empty()) {
    const Value *path = c.find_named("attribute"), *otherwise = c.find_named("default");
    if (!path || c.named.size() != 1u + (otherwise != nullptr)) c.fail("needs a filter's name or attribute=...");
    for (const Value& v : iterate(c.heap, c.self)) {
      const Value found = attribute_of(c, v, *path);
      out.add(found.is(Kind::undefined) && otherwise ? *otherwise : found);
    }
    return out.finish(Kind::generator);
  }
  const Native* filter = c.positional[0].is(Kind::string) ? find_filter(c.positional[0].view()) : nullptr;
  if (!filter) c.fail("no filter of that name in the supported subset");
  for (const Value& v : iterate(c.heap, c.self)) out.add(invoke({c.heap, *filter, v, c.positional.subspan(1), c.names, c.named}));
  return out.finish(Kind::generator);
}

template <bool wanted, bool by_attribute>
Value select(Call& c) {
  if (!truth(c.self)) return make_array(c.heap, Kind::generator, {});
  if (by_attribute && c.positional.empty()) c.fail("needs an attribute");
  const std::span<const Value> rest = c.positional.subspan(by_attribute);
  const Native* test = rest.empty() ? nullptr : rest[0].is(Kind::string) ? find_test(rest[0].view()) : nullptr;
  if (!test && !rest.empty()) c.fail("no test of that name in the supported subset");
  ArrayBuilder out(c.heap);
  for (const Value& v : iterate(c.heap, c.self)) {
    const Value subject = by_attribute ? attribute_of(c, v, c.positional[0]) : v;
    const bool passes = truth(test ? invoke({c.heap, *test, subject, rest.subspan(1), c.names, c.named}) : subject);
    if (passes == wanted) out.add(v);
  }
  return out.finish(Kind::generator);
}

constexpr Native of_sequences[] = {
    {"items", items},
    {"dictsort", dictsort, 0, false, {"case_sensitive", "by", "reverse"}},
    {"sort", sort, 0, false, {"reverse", "case_sensitive", "attribute"}},
    {"unique", unique, 0, false, {"case_sensitive", "attribute"}},
    {"min", extreme<-1>, 0, false, {"case_sensitive", "attribute"}},
    {"max", extreme<1>, 0, false, {"case_sensitive", "attribute"}},
    {"sum", sum, 0, false, {"attribute", "start"}},
    {"length", length},
    {"count", length},
    {"first", first},
    {"last", last},
    {"list", list},
    {"reverse", reverse},
    {"join", join, 0, false, {"d", "attribute"}},
    {"map", map, 0, true},
    {"select", select<true, false>, 0, true},
    {"reject", select<false, false>, 0, true},
    {"selectattr", select<true, true>, 0, true},
    {"rejectattr", select<false, true>, 0, true},
};

}  // namespace

std::span<const Native> sequence_filters() { return of_sequences; }

}  // namespace gptq::text::jinja
