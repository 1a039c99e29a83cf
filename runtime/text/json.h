// SPDX-License-Identifier: Apache-2.0
// JSON as template values, and template values as JSON the way Python's json.dumps writes it.
#pragma once
#include <string_view>

#include "text/jinja/value.h"

namespace gptq::text {

// Strings in the result are untrusted. Fails with INVALID_ARGUMENT, the document's name and the offset in it: anything that RFC 8259
// does not allow, a key twice in one object, nesting deeper than 64, numbers beyond double. Those of more
// digits than 64 bits or a double hold are numbers, and the heap keeps their text, which must outlive it.
jinja::Value read_json(jinja::Heap& heap, std::string_view text, std::string_view document);

struct JsonStyle {
  bool ascii = false;   // other characters as \uXXXX
  bool sorted = false;  // keys
  bool lines = false;   // each item on a line of its own, indented by `indent` per level
  std::string_view indent, comma = ", ", colon = ": ";
};
jinja::Value write_json(jinja::Heap& heap, const jinja::Value& value, const JsonStyle& style);

}  // namespace gptq::text
