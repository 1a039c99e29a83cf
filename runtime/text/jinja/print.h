// SPDX-License-Identifier: Apache-2.0
// Values as text, the way Python prints them. Text of a list or dict is as trusted as the least trusted string in it.
#pragma once
#include "text/jinja/strings.h"

namespace gptq::text::jinja {

Value to_string(Heap& heap, const Value& v);  // str(); a string is returned as it is
Value to_repr(Heap& heap, const Value& v);
bool all_trusted(Heap& heap, const Value& v);  // every string in it

// The text of a number, in a buffer of the caller.
using NumberText = char[40];
std::string_view number_text(int64_t value, NumberText& buffer);
std::string_view number_text(double value, NumberText& buffer);  // repr(): 1.0, 1e+16, 0.0001, 1e-05, inf, nan
std::string_view number_text(const Heap& heap, const Value& number, NumberText& buffer);  // of an integer beyond 64 bits all digits

}  // namespace gptq::text::jinja
