// SPDX-License-Identifier: Apache-2.0
// Functions written here and called by templates: filters, tests, methods, globals. One table entry each.
#pragma once
#include <array>
#include <span>
#include <string_view>

#include "text/jinja/value.h"

namespace gptq::text::jinja {

constexpr size_t max_parameters = 5;

struct Native;

struct Call {
  Heap& heap;
  const Native& native;
  Value self;  // the filtered or tested value, or the object of a method
  std::span<const Value> positional;
  std::span<const std::string_view> names;
  std::span<const Value> named;
  std::array<const Value*, max_parameters> argument{};  // by parameter; NULL where none was given

  // Arguments with a default; fail on another kind.
  int64_t integer(size_t i, int64_t otherwise) const;
  bool flag(size_t i, bool otherwise) const;
  Value string(size_t i, std::string_view otherwise) const;
  bool given(size_t i) const { return argument[i] && !argument[i]->is(Kind::undefined); }
  const Value* find_named(std::string_view name) const;
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const;
};

struct Native {
  std::string_view name;
  Value (*function)(Call& call);
  uint8_t n_required = 0;
  bool any = false;  // takes what arguments it likes from positional and named
  std::array<std::string_view, max_parameters> parameters{};
};

template <class... Parts>
[[noreturn]] void Call::fail(const Parts&... parts) const {
  heap.fail(GPTQ_E_TEMPLATE, native.name, "(): ", parts...);
}

// Binds the arguments to the parameters and calls.
Value invoke(Call call);

// NULL where there is none of that name.
const Native* find_native(std::span<const Native> table, std::string_view name);
const Native* find_filter(std::string_view name);
const Native* find_test(std::string_view name);
const Native* find_global(std::string_view name);
const Native* find_method(const Value& object, std::string_view name);
bool hides_key(std::string_view name);  // a method of dict that changes it

std::span<const Native> text_filters();
std::span<const Native> sequence_filters();

// Attribute and item access as Jinja does it: undefined where there is none.
Value get_attribute(Heap& heap, const Value& object, std::string_view name);
Value get_item(Heap& heap, const Value& object, const Value& key);
Value get_slice(Heap& heap, const Value& object, const Value& start, const Value& end, const Value& step);

// Set for a Value of kind function: a native bound to an object, or a macro with the scope it was defined in.
struct Function {
  const Native* native;
  Value self;
  int32_t macro = -1;
  Scope* scope = nullptr;
};

// strftime_now for this time: seconds since 1970 where the clock of the chat stands.
Value clock_at(Heap& heap, const Value& now);

}  // namespace gptq::text::jinja
