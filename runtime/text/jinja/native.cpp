// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/native.h"

#include <algorithm>

#include "text/jinja/strings.h"

namespace gptq::text::jinja {

int64_t Call::integer(size_t i, int64_t otherwise) const {
  if (!argument[i]) return otherwise;
  if (!argument[i]->is_integer()) fail("'", native.parameters[i], "' must be an integer, not '", kind_name(*argument[i]), "'");
  return argument[i]->as_integer();
}

bool Call::flag(size_t i, bool otherwise) const { return argument[i] ? truth(*argument[i]) : otherwise; }

Value Call::string(size_t i, std::string_view otherwise) const {
  if (!argument[i]) return make_string(heap, otherwise, true);
  if (!argument[i]->is(Kind::string)) fail("'", native.parameters[i], "' must be a string, not '", kind_name(*argument[i]), "'");
  return *argument[i];
}

const Value* Call::find_named(std::string_view name) const {
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] == name) return &named[i];
  return nullptr;
}

Value invoke(Call call) {
  const Native& native = call.native;
  if (native.any) return native.function(call);
  const auto end = std::find(native.parameters.begin(), native.parameters.end(), std::string_view());
  const auto n = static_cast<size_t>(end - native.parameters.begin());
  if (call.positional.size() > n) call.fail("takes at most ", n, " arguments");
  for (size_t i = 0; i < call.positional.size(); ++i) call.argument[i] = &call.positional[i];
  for (size_t i = 0; i < call.names.size(); ++i) {
    const auto p = static_cast<size_t>(std::find(native.parameters.begin(), end, call.names[i]) - native.parameters.begin());
    if (p == n) call.fail("takes no argument '", call.names[i], "'");
    if (call.argument[p]) call.fail("got two values for '", call.names[i], "'");
    call.argument[p] = &call.named[i];
  }
  for (size_t i = 0; i < native.n_required; ++i)
    if (!call.argument[i]) call.fail("needs the argument '", native.parameters[i], "'");
  return native.function(call);
}

const Native* find_native(std::span<const Native> table, std::string_view name) {
  for (const Native& n : table)
    if (n.name == name) return &n;
  return nullptr;
}

const Native* find_filter(std::string_view name) {
  const Native* n = find_native(text_filters(), name);
  return n ? n : find_native(sequence_filters(), name);
}

}  // namespace gptq::text::jinja
