// SPDX-License-Identifier: Apache-2.0
// Loosely typed access to a tokenizer's JSON files: an absent field and one that is null are the same, a wrong type fails by name.
#pragma once
#include <optional>
#include <string_view>

#include "converter/json.h"

namespace gptq::convert {

using Json = simdjson::dom::element;
using JsonFields = simdjson::dom::object;

std::optional<Json> field(JsonFields object, std::string_view name);
// Nothing where it is no object.
std::optional<Json> field(Json object, std::string_view name);
std::optional<Json> field(const std::optional<Json>& object, std::string_view name);
std::string_view string_field(Json object, std::string_view name, std::string_view absent = "");
bool bool_field(Json object, std::string_view name, bool absent = false);
std::string_view as_string(Json value, std::string_view what);
simdjson::dom::array as_array(Json value, std::string_view what);
JsonFields as_object(Json value, std::string_view what);
// A token id: 0 to 2^20 - 1.
uint32_t as_id(Json value, std::string_view what);

// Reads a file of at most 64 MiB.
JsonDocument read_json(const std::string& path, std::string_view name);

}  // namespace gptq::convert
