// SPDX-License-Identifier: Apache-2.0
#include "converter/tokenizer/json_fields.h"

#include "base/failure.h"

namespace gptq::convert {
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
  return JsonDocument(name, read_text(path, 64u << 20));
}

}  // namespace gptq::convert
