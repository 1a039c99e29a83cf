// SPDX-License-Identifier: Apache-2.0
#include "converter/json_writer.h"

#include <charconv>
#include <memory_resource>

#include "text/utf8.h"

namespace gptq::convert {
namespace {

// With a point or an exponent, by which readers tell real numbers from whole ones.
template <class T>
std::string shortest(T value) {
  char digits[48];
  const std::string text(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  return text.find_first_of(".e") == text.npos ? text + ".0" : text;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::pmr::string repaired;
  if (text::valid_prefix(text) != text.size()) {
    text::append_repaired(text, repaired);
    text = repaired;
  }
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += {'\\', c};
    else if (static_cast<unsigned char>(c) >= 0x20) out += c;
    else out += {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
  }
  return out + '"';
}

// Within JSON a newline is never part of a string, so what is inside can be indented as it stands.
JsonWriter& JsonWriter::add_raw(std::string_view key, std::string_view json) {
  text_.append(empty() ? "\n  " : ",\n  ").append(json_quoted(key)).append(": ");
  for (const char c : json) text_.append(c == '\n' ? "\n  " : std::string_view(&c, 1));
  return *this;
}

std::string json_number(double value) { return shortest(value); }
std::string json_number(float value) { return shortest(value); }

}  // namespace gptq::convert
