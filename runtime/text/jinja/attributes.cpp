// SPDX-License-Identifier: Apache-2.0
// Attributes, items and slices of values.
#include <algorithm>

#include "text/jinja/native.h"
#include "text/jinja/strings.h"

namespace gptq::text::jinja {
namespace {

Value missing(Heap& heap, std::string_view name) {
  Value v = make_string(heap, name, true);
  v.kind = Kind::undefined;
  return v;
}

Value loop_attribute(Heap& heap, Loop& loop, std::string_view name) {
  const auto n = static_cast<int64_t>(loop.items.size()), index = static_cast<int64_t>(loop.done);
  if (name == "index") return Value::of_int(index);
  if (name == "index0") return Value::of_int(index - 1);
  if (name == "revindex") return Value::of_int(n - index + 1);
  if (name == "revindex0") return Value::of_int(n - index);
  if (name == "first") return Value::of_bool(index == 1);
  if (name == "last") return Value::of_bool(index == n);
  if (name == "length") return Value::of_int(n);
  if (name == "depth") return Value::of_int(1);
  if (name == "depth0") return Value::of_int(0);
  if (name == "previtem") return index > 1 ? loop.items[loop.done - 2] : missing(heap, "there is no previous item");
  if (name == "nextitem") return index < n ? loop.items[loop.done] : missing(heap, "there is no next item");
  return missing(heap, name);
}

Value space_attribute(Heap& heap, const Namespace& space, std::string_view name) {
  heap.spend(space.entries.size() / 16);
  for (const Entry& e : space.entries)
    if (e.key.view() == name) return e.value;
  return missing(heap, name);
}

[[noreturn]] void fail_undefined(Heap& heap, const Value& object, std::string_view wanted) {
  heap.fail(GPTQ_E_TEMPLATE, "'", object.view(), "' is undefined: it has no '", wanted, "'");
}

// What Python finds on the object itself; kind undefined where there is nothing.
Value own_attribute(Heap& heap, const Value& object, std::string_view name) {
  if (object.is(Kind::space)) return space_attribute(heap, *object.space, name);
  if (object.is(Kind::loop) && !find_method(object, name)) return loop_attribute(heap, *object.loop, name);
  if (const Native* method = find_method(object, name)) return Value::of_function(heap.make<Function>(method, object));
  if (object.is(Kind::function)) heap.fail(GPTQ_E_TEMPLATE, "attributes of functions are outside the supported subset: '", name, "'");
  return missing(heap, name);
}

bool to_index(int64_t i, size_t n, size_t& index) {
  const auto size = static_cast<int64_t>(n);
  if (i < -size || i >= size) return false;
  index = static_cast<size_t>(i < 0 ? i + size : i);
  return true;
}

struct Range {
  int64_t start, end, step, n;
};

// Python's rules for slices of `size` items.
Range resolve(Heap& heap, const Value& start, const Value& end, const Value& by, int64_t size) {
  const auto number = [&](const Value& v, int64_t otherwise) {
    if (v.is(Kind::none)) return otherwise;
    if (!v.is_integer()) heap.fail(GPTQ_E_TEMPLATE, "slice indices must be integers or none, not '", kind_name(v), "'");
    return v.as_integer();
  };
  const int64_t step = std::clamp<int64_t>(number(by, 1), -INT32_MAX, INT32_MAX);
  if (step == 0) heap.fail(GPTQ_E_TEMPLATE, "slice step cannot be zero");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto clip = [&](const Value& v, int64_t otherwise) {
    if (v.is(Kind::none)) return otherwise;
    const int64_t i = number(v, 0);
    return std::clamp(i < 0 ? (i < -size ? low : i + size) : i, low, high);
  };
  const int64_t from = clip(start, step > 0 ? low : high), to = clip(end, step > 0 ? high : low);
  const int64_t n = step > 0 ? (to > from ? (to - from - 1) / step + 1 : 0) : (from > to ? (from - to - 1) / -step + 1 : 0);
  return {from, to, step, n};
}

Value slice_string(Heap& heap, const Value& object, const Range& r) {
  const std::string_view text = object.view();
  heap.spend_bytes(text.size());
  if (r.n == 0) return slice(object, 0, 0);
  if (r.step == 1) {
    const size_t from = byte_offset(text, static_cast<size_t>(r.start));
    return slice(object, from, byte_offset(text.substr(from), static_cast<size_t>(r.n)));
  }
  const std::span<const Value> characters = iterate(heap, object);
  Writer out(heap);
  for (int64_t i = 0; i < r.n; ++i) out.add(characters[static_cast<size_t>(r.start + i * r.step)]);
  return out.finish(object.safe);
}

}  // namespace

Value get_attribute(Heap& heap, const Value& object, std::string_view name) {
  if (object.is(Kind::undefined)) fail_undefined(heap, object, name);
  const Value v = own_attribute(heap, object, name);
  if (!v.is(Kind::undefined) || !object.is(Kind::dict) || hides_key(name)) return v;
  const Value* item = object.dict->find(heap, name);
  return item ? *item : v;
}

Value get_item(Heap& heap, const Value& object, const Value& key) {
  size_t i = 0;
  if (object.is(Kind::undefined)) fail_undefined(heap, object, key.is(Kind::string) ? key.view() : "item");
  if (object.is(Kind::dict)) {
    if (const Value* item = object.dict->find(heap, key)) return *item;
  } else if (key.is_integer() && object.is_sequence()) {
    if (to_index(key.as_integer(), object.array->size, i)) return object.array->items[i];
  } else if (key.is_integer() && object.is(Kind::string)) {
    heap.spend_bytes(object.size);
    const std::string_view text = object.view();
    if (!to_index(key.as_integer(), count_code_points(text), i)) return missing(heap, "a character out of range");
    const size_t at = byte_offset(text, i);
    return slice(object, at, code_point_size(text[at]));
  }
  if (key.is(Kind::string)) return own_attribute(heap, object, key.view());
  return missing(heap, "an item");
}

Value get_slice(Heap& heap, const Value& object, const Value& start, const Value& end, const Value& step) {
  if (object.is(Kind::undefined)) fail_undefined(heap, object, "slice");
  if (object.is(Kind::string)) return slice_string(heap, object, resolve(heap, start, end, step, length(heap, object)));
  if (!object.is_sequence()) heap.fail(GPTQ_E_TEMPLATE, "'", kind_name(object), "' object cannot be sliced");
  const Range r = resolve(heap, start, end, step, object.array->size);
  ArrayBuilder out(heap);
  for (int64_t i = 0; i < r.n; ++i) out.add(object.array->items[r.start + i * r.step]);
  return out.finish(object.kind);
}

}  // namespace gptq::text::jinja
