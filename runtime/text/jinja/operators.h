// SPDX-License-Identifier: Apache-2.0
// Arithmetic and membership, as Python does them on 64-bit integers.
#pragma once
#include "text/jinja/program.h"

namespace gptq::text::jinja {

Value apply(Heap& heap, Op op, const Value& a, const Value& b);  // add ... not_in
Value negate(Heap& heap, const Value& v);
bool contains(Heap& heap, const Value& container, const Value& what);

}  // namespace gptq::text::jinja
