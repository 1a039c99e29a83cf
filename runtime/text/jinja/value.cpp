// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/value.h"

#include <algorithm>
#include <numeric>

#include "text/jinja/sort.h"
#include "text/jinja/strings.h"

namespace gptq::text::jinja {
namespace {

constexpr uint32_t indexed_from = 12;  // entries; below, a scan is as fast

int order(std::string_view a, std::string_view b) {
  const int c = a.compare(b);
  return c < 0 ? -1 : c > 0;
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer();
  return a.as_number() < b.as_number() ? -1 : a.as_number() > b.as_number();
}

bool equal_dicts(Heap& heap, const Dict& a, const Dict& b) {
  if (a.size != b.size) return false;
  return std::all_of(a.entries, a.entries + a.size, [&](const Entry& e) {
    const Value* other = b.find(heap, e.key);
    return other && equal(heap, e.value, *other);
  });
}

Value characters(Heap& heap, const Value& string) {
  const std::string_view text = string.view();
  ArrayBuilder out(heap);
  for (size_t i = 0; i < text.size();) {
    const size_t n = code_point_size(text[i]);
    Value character = slice(string, i, n);
    character.safe = false;
    out.add(character);
    i += n;
  }
  return out.finish(Kind::list);
}

}  // namespace

const Value* Dict::find(Heap& heap, std::string_view key) const {
  if (!order) {
    heap.spend(size / 8);
    for (uint32_t i = 0; i < size; ++i)
      if (entries[i].key.is(Kind::string) && entries[i].key.view() == key) return &entries[i].value;
    return nullptr;
  }
  const uint32_t* at = std::lower_bound(order, order + size, key,
                                        [&](uint32_t i, std::string_view k) { return entries[i].key.view() < k; });
  return at != order + size && entries[*at].key.view() == key ? &entries[*at].value : nullptr;
}

const Value* Dict::find(Heap& heap, const Value& key) const {
  if (key.is(Kind::string)) return find(heap, key.view());
  if (order) return nullptr;
  heap.spend(size / 8);
  for (uint32_t i = 0; i < size; ++i)
    if (equal(heap, entries[i].key, key)) return &entries[i].value;
  return nullptr;
}

void ArrayBuilder::add(const Value& value) {
  heap_.spend(1);
  if (size_ == capacity_) {
    Value* grown = heap_.array<Value>(capacity_ = capacity_ ? capacity_ * 2 : 8);
    std::copy(items_, items_ + size_, grown);
    items_ = grown;
  }
  items_[size_++] = value;
}

Value ArrayBuilder::finish(Kind kind) {
  uint32_t depth = 0;
  for (uint32_t i = 0; i < size_; ++i) depth = std::max(depth, depth_of(items_[i]));
  if (depth >= max_value_depth) heap_.fail(GPTQ_E_TEMPLATE, "values nested deeper than ", max_value_depth);
  return Value::of_array(kind, heap_.make<Array>(items_, size_, depth + 1));
}

Value make_array(Heap& heap, Kind kind, std::span<const Value> items) {
  ArrayBuilder out(heap);
  for (const Value& v : items) out.add(v);
  return out.finish(kind);
}

namespace {

// Entries in order of their string keys; equal keys keep the order of the entries.
uint32_t* sort_keys(Heap& heap, const Entry* entries, uint32_t n) {
  uint32_t* order = heap.array<uint32_t>(n);
  std::iota(order, order + n, 0);
  merge_sort(heap, order, n, [&](uint32_t a, uint32_t b) { return entries[a].key.view() < entries[b].key.view(); });
  return order;
}

void check_duplicate(Heap& heap, const Value& key, std::string_view document) {
  if (!document.empty()) heap.fail(GPTQ_E_INVALID_ARGUMENT, document, ": key \"", key.view(), "\" appears twice");
}

// Python keeps the place (and the key) of the first entry and the value of the last.
uint32_t drop_duplicates(Heap& heap, Entry* entries, uint32_t n, std::string_view document) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const Dict before{entries, nullptr, kept, 0};
    const Value* same = before.find(heap, entries[i].key);
    if (!same) {
      entries[kept++] = entries[i];
      continue;
    }
    check_duplicate(heap, entries[i].key, document);
    *const_cast<Value*>(same) = entries[i].value;
  }
  return kept;
}

bool has_duplicates(Heap& heap, const Entry* entries, const uint32_t* order, uint32_t n, std::string_view document) {
  for (uint32_t i = 1; i < n; ++i) {
    if (entries[order[i - 1]].key.view() != entries[order[i]].key.view()) continue;
    check_duplicate(heap, entries[order[i]].key, document);
    return true;
  }
  return false;
}

}  // namespace

Value make_dict(Heap& heap, Entry* entries, uint32_t n, std::string_view document) {
  bool strings = true;
  uint32_t depth = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const Value& key = entries[i].key;
    strings = strings && key.is(Kind::string);
    depth = std::max({depth, depth_of(key), depth_of(entries[i].value)});
    if (key.is(Kind::list) || key.is(Kind::dict)) heap.fail(GPTQ_E_TEMPLATE, "unhashable type: '", kind_name(key), "'");
  }
  if (depth >= max_value_depth) heap.fail(GPTQ_E_TEMPLATE, "values nested deeper than ", max_value_depth);
  uint32_t* order = nullptr;
  if (strings && n >= indexed_from) order = sort_keys(heap, entries, n);
  if (!order || has_duplicates(heap, entries, order, n, document)) {
    n = drop_duplicates(heap, entries, n, document);
    order = strings && n >= indexed_from ? sort_keys(heap, entries, n) : nullptr;
  }
  return Value::of_dict(heap.make<Dict>(entries, order, n, depth + 1));
}

uint32_t depth_of(const Value& v) { return v.is_array() ? v.array->depth : v.is(Kind::dict) ? v.dict->depth : 0; }

bool truth(const Value& v) {
  switch (v.kind) {
    case Kind::undefined: case Kind::none: return false;
    case Kind::boolean: return v.boolean;
    case Kind::integer: return v.integer != 0;
    case Kind::number: return v.number != 0;
    case Kind::string: return v.size != 0;
    case Kind::list: case Kind::tuple: case Kind::view: case Kind::range: return v.array->size != 0;
    case Kind::dict: return v.dict->size != 0;
    case Kind::generator: case Kind::space: case Kind::loop: case Kind::function: return true;
  }
  return true;
}

bool equal(Heap& heap, const Value& a, const Value& b) {
  heap.spend(1);
  if (a.is_numeric() && b.is_numeric()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
    return a.as_number() == b.as_number();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::undefined: case Kind::none: return true;
    case Kind::string: heap.spend_bytes(a.size); return a.view() == b.view();
    case Kind::list: case Kind::tuple: case Kind::range:
      if (a.array->size != b.array->size) return false;
      for (uint32_t i = 0; i < a.array->size; ++i)
        if (!equal(heap, a.array->items[i], b.array->items[i])) return false;
      return true;
    case Kind::dict: return equal_dicts(heap, *a.dict, *b.dict);
    default: return a.array == b.array;  // by identity
  }
}

int compare(Heap& heap, const Value& a, const Value& b) {
  heap.spend(1);
  if (a.is_numeric() && b.is_numeric()) return compare_numbers(a, b);
  if (a.is(Kind::string) && b.is(Kind::string)) {
    heap.spend_bytes(std::min(a.size, b.size));
    return order(a.view(), b.view());
  }
  if (a.kind != b.kind || (!a.is(Kind::list) && !a.is(Kind::tuple)))
    heap.fail(GPTQ_E_TEMPLATE, "cannot order '", kind_name(a), "' and '", kind_name(b), "'");
  for (uint32_t i = 0; i < a.array->size && i < b.array->size; ++i) {
    const Value &x = a.array->items[i], &y = b.array->items[i];
    if (!equal(heap, x, y)) return compare(heap, x, y);
  }
  return a.array->size < b.array->size ? -1 : a.array->size > b.array->size;
}

std::string_view kind_name(const Value& v) {
  switch (v.kind) {
    case Kind::undefined: return "Undefined";
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::number: return "float";
    case Kind::string: return "str";
    case Kind::list: return "list";
    case Kind::tuple: return "tuple";
    case Kind::view: return "dict view";
    case Kind::range: return "range";
    case Kind::generator: return "generator";
    case Kind::dict: return "dict";
    case Kind::space: return "Namespace";
    case Kind::loop: return "LoopContext";
    case Kind::function: return "function";
  }
  return "?";
}

std::span<const Value> iterate(Heap& heap, const Value& v) {
  switch (v.kind) {
    case Kind::undefined: return {};
    case Kind::string: {
      const Array& a = *characters(heap, v).array;
      return {a.items, a.size};
    }
    case Kind::list: case Kind::tuple: case Kind::view: case Kind::range: return {v.array->items, v.array->size};
    case Kind::generator: {
      const uint32_t from = std::exchange(v.array->taken, v.array->size);
      return {v.array->items + from, v.array->size - from};
    }
    case Kind::dict: {
      ArrayBuilder keys(heap);
      for (uint32_t i = 0; i < v.dict->size; ++i) keys.add(v.dict->entries[i].key);
      const Array& a = *keys.finish(Kind::list).array;
      return {a.items, a.size};
    }
    case Kind::loop: heap.fail(GPTQ_E_TEMPLATE, "iterating over `loop` is outside the supported subset");
    default: heap.fail(GPTQ_E_TEMPLATE, "'", kind_name(v), "' object is not iterable");
  }
}

int64_t length(Heap& heap, const Value& v) {
  switch (v.kind) {
    case Kind::undefined: return 0;
    case Kind::string: heap.spend_bytes(v.size); return static_cast<int64_t>(count_code_points(v.view()));
    case Kind::list: case Kind::tuple: case Kind::view: case Kind::range: return v.array->size;
    case Kind::dict: return v.dict->size;
    default: heap.fail(GPTQ_E_TEMPLATE, "object of type '", kind_name(v), "' has no len()");
  }
}

}  // namespace gptq::text::jinja
