// SPDX-License-Identifier: Apache-2.0
// JSON files of checkpoints: bounded in size and depth, duplicate keys refused, every wrong type named by file and key.
#pragma once
#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/failure.h"

namespace gptq::convert {

// In small letters, as far as they are ASCII's.
std::string lower(std::string_view text);

// An object within a document, with the path that names it in messages. Absent and null are the same to every accessor.
class JsonObject {
 public:
  JsonObject(std::string where, simdjson::dom::object object) : where_(std::move(where)), object_(object) {}

  bool has(std::string_view key) const { return find(key).has_value(); }
  std::optional<simdjson::dom::element> find(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<simdjson::dom::array> array(std::string_view key) const;
  std::optional<JsonObject> object(std::string_view key) const;
  // The key that must be there.
  uint32_t count(std::string_view key) const;
  uint32_t count(std::string_view key, uint32_t otherwise) const;
  double number(std::string_view key, double otherwise) const { return number(key).value_or(otherwise); }
  bool boolean(std::string_view key, bool otherwise) const { return boolean(key).value_or(otherwise); }

  simdjson::dom::object fields() const { return object_; }
  const std::string& where() const { return where_; }
  [[noreturn]] void refuse(std::string_view key, std::string_view rule, base::Code code = {GPTQ_E_FORMAT, __builtin_FILE(), __builtin_LINE()}) const;

 private:
  std::string where_;  // "config.json", "config.json: rope_scaling"
  simdjson::dom::object object_;
};

class JsonDocument {
 public:
  // text: the whole file. name is for messages.
  JsonDocument(std::string_view name, std::string_view text);
  // Reads the file; fails with NOT_FOUND, IO or FORMAT.
  static JsonDocument read(const std::string& path, std::string_view name, uint64_t bytes_max);
  JsonObject root() const { return {name_, root_}; }

 private:
  std::string name_;
  simdjson::dom::parser parser_;
  simdjson::dom::object root_;
};

// The whole of a small file.
std::string read_text(const std::string& path, uint64_t bytes_max);
bool file_exists(const std::string& path);
// What a command is to write: refused where something is there, or, with replace, where that is no regular file.
void refuse_existing(const std::string& target, bool replace);

}  // namespace gptq::convert
