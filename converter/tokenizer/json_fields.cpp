// SPDX-License-Identifier: Apache-2.0
#include "converter/tokenizer/json_fields.h"

#include "base/failure.h"

namespace gptq::convert {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Where the number at text[at] ends, if it is a whole one with more digits than 64 bits hold; otherwise at.
size_t big_integer_end(std::string_view text, size_t at) {
  size_t end = at;
  while (end < text.size() && is_digit(text[end])) ++end;
  const bool fraction = end < text.size() && (text[end] == '.' || text[end] == 'e' || text[end] == 'E');
  return end - at > 18 && !fraction ? end : at;
}

std::string with_real_numbers(const std::string& text) {
  std::string out;
  size_t copied = 0;
  bool in_string = false;
  for (size_t at = 0; at < text.size(); ++at) {
    if (in_string && text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      in_string = !in_string;
    } else if (!in_string && is_digit(text[at])) {
      const size_t end = big_integer_end(text, at);
      if (end == at) continue;
      out.append(text, copied, end - copied).append("e0");
      copied = end;
      at = end - 1;
    }
  }
  return copied ? out.append(text, copied) : text;
}

}  // namespace

std::optional<Json> field(JsonFields object, std::string_view name) {
  Json value;
  if (object.at_key(name).get(value) || value.is_null()) return {};
  return value;
}

std::optional<Json> field(Json object, std::string_view name) {
  JsonFields fields;
  if (object.get(fields)) return {};
  return field(fields, name);
}

std::optional<Json> field(const std::optional<Json>& object, std::string_view name) { return object ? field(*object, name) : std::nullopt; }

std::string_view as_string(Json value, std::string_view what) {
  std::string_view text;
  if (value.get(text)) base::fail(GPTQ_E_FORMAT, "tokenizer: ", what, " must be a string");
  return text;
}

std::string_view string_field(Json object, std::string_view name, std::string_view absent) {
  const std::optional<Json> value = field(object, name);
  return value ? as_string(*value, name) : absent;
}

bool bool_field(Json object, std::string_view name, bool absent) {
  const std::optional<Json> value = field(object, name);
  if (!value) return absent;
  bool flag;
  if (value->get(flag)) base::fail(GPTQ_E_FORMAT, "tokenizer: ", name, " must be true or false");
  return flag;
}

simdjson::dom::array as_array(Json value, std::string_view what) {
  simdjson::dom::array array;
  if (value.get(array)) base::fail(GPTQ_E_FORMAT, "tokenizer: ", what, " must be a list");
  return array;
}

JsonFields as_object(Json value, std::string_view what) {
  JsonFields object;
  if (value.get(object)) base::fail(GPTQ_E_FORMAT, "tokenizer: ", what, " must be an object");
  return object;
}

uint32_t as_id(Json value, std::string_view what) {
  uint64_t id;
  if (value.get(id) || id >= 1u << 20) base::fail(GPTQ_E_FORMAT, "tokenizer: the id of ", what, " must be a number below 1048576");
  return static_cast<uint32_t>(id);
}

JsonDocument read_json(const std::string& path, std::string_view name) {
  return JsonDocument(name, with_real_numbers(read_text(path, 64u << 20)));
}

}  // namespace gptq::convert
