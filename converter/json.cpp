// SPDX-License-Identifier: Apache-2.0
#include "converter/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/checked.h"
#include "base/file_kind.h"
#include "base/io.h"
#include "base/os.h"

namespace gptq::convert {
namespace {

using base::fail;
using simdjson::dom::element;
constexpr size_t depth_max = 64;

void check_duplicates(const std::string& file, element value);  // recursion ends at depth_max, which the parser enforces

void check_duplicates(const std::string& file, simdjson::dom::object object) {
  std::vector<std::string_view> keys;
  for (const auto field : object) {
    keys.push_back(field.key);
    check_duplicates(file, field.value);
  }
  std::sort(keys.begin(), keys.end());
  if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end())
    fail(GPTQ_E_FORMAT, "'", file, "': the key '", *twice, "' stands twice in one object");
}

void check_duplicates(const std::string& file, element value) {
  simdjson::dom::object object;
  simdjson::dom::array array;
  if (!value.get(object)) check_duplicates(file, object);
  if (value.get(array)) return;
  for (const element item : array) check_duplicates(file, item);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

// What Python writes where JSON has no word for it, or a number; "" where neither begins here.
std::string_view word_or_number(std::string_view text) {
  for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
    if (text.starts_with(word)) return word;
  const bool number = is_digit(text[0]) || (text[0] == '-' && text.size() > 1 && is_digit(text[1]));
  return number ? text.substr(0, text.find_first_not_of("0123456789+-.eE")) : std::string_view();
}

std::string in_json(std::string_view literal) {
  double value = 0;
  const std::errc error = std::from_chars(literal.data(), literal.data() + literal.size(), value).ec;
  if (!is_digit(literal.back()) || error == std::errc::result_out_of_range) return quoted(literal);
  const bool big = literal.size() > 18 && literal.find_first_of(".eE") == literal.npos;
  return std::string(literal) + (big ? "e0" : "");
}

// Python writes and reads NaN, Infinity and -Infinity, which JSON does not have, and numbers of any size: as strings they are no numbers to
// any accessor, and where nobody asks for the key they do no harm. Whole numbers beyond 64 bits, which model_max_length likes to be, become
// real ones.
std::string as_python_reads(std::string_view text) {
  std::string out;
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    size_t n = 1;
    if (in_string && text[i] == '\\') n = std::min<size_t>(2, text.size() - i);
    if (text[i] == '"') in_string = !in_string;
    const std::string_view literal = in_string ? std::string_view() : word_or_number(text.substr(i));
    if (literal.empty()) out += text.substr(i, n); else out += in_json(literal);
    i += literal.empty() ? n : literal.size();
  }
  return out;
}

template <class T>
std::optional<T> typed(const JsonObject& object, std::string_view key, std::string_view type) {
  const auto found = object.find(key);
  if (!found) return std::nullopt;
  T value;
  if (found->get<T>().get(value)) object.refuse(key, type);
  return value;
}

// A number, or text that is one.
std::optional<double> real_of(element value) {
  double real;
  std::string_view text;
  if (!value.get_double().get(real)) return real;
  if (value.get_string().get(text)) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), real);
  const bool whole = error == std::errc() && end == text.data() + text.size() && std::isfinite(real);  // NaN and Infinity come as text
  return whole ? std::optional(real) : std::nullopt;
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

void JsonObject::refuse(std::string_view key, std::string_view rule, base::Code code) const { fail(code, "'", where_, "': '", key, "' ", rule); }

std::optional<element> JsonObject::find(std::string_view key) const {
  element value;
  if (object_.at_key(key).get(value) || value.is_null()) return std::nullopt;
  return value;
}

// Configs are also written by hand and by programs that keep numbers as text or reals: "4", 4.0 and 1 for true mean what they say.
std::optional<int64_t> JsonObject::integer(std::string_view key) const {
  constexpr double most = 1ll << 53;
  const auto found = find(key);
  int64_t whole;
  if (!found || !found->get_int64().get(whole)) return found ? std::optional(whole) : std::nullopt;
  const auto real = real_of(*found);
  if (!real || std::floor(*real) != *real || std::abs(*real) > most) refuse(key, "must be a whole number");
  return static_cast<int64_t>(*real);
}

std::optional<bool> JsonObject::boolean(std::string_view key) const {
  const auto found = find(key);
  bool value;
  if (!found || !found->get_bool().get(value)) return found ? std::optional(value) : std::nullopt;
  std::string_view word;
  if (!found->get_string().get(word)) {
    if (word == "true" || word == "True") return true;
    if (word == "false" || word == "False") return false;
  } else if (const auto real = real_of(*found); real && (*real == 0 || *real == 1)) {
    return *real == 1;
  }
  refuse(key, "must be true or false");
}

std::optional<std::string_view> JsonObject::string(std::string_view key) const {
  return typed<std::string_view>(*this, key, "must be a string");
}
std::optional<simdjson::dom::array> JsonObject::array(std::string_view key) const {
  return typed<simdjson::dom::array>(*this, key, "must be a list");
}

std::optional<double> JsonObject::number(std::string_view key) const {
  const auto found = find(key);
  if (!found) return std::nullopt;
  const auto value = real_of(*found);
  if (!value) refuse(key, "must be a number");
  if (!std::isfinite(*value)) refuse(key, "must be finite");
  return value;
}

std::optional<JsonObject> JsonObject::object(std::string_view key) const {
  const auto value = typed<simdjson::dom::object>(*this, key, "must be an object");
  if (!value) return std::nullopt;
  return JsonObject(where_ + ": " + std::string(key), *value);
}

uint32_t JsonObject::count(std::string_view key) const {
  const auto value = integer(key);
  if (!value) refuse(key, "is missing");
  if (*value < 1 || *value > INT32_MAX) refuse(key, "must be a positive number of 31 bits");
  return static_cast<uint32_t>(*value);
}

uint32_t JsonObject::count(std::string_view key, uint32_t otherwise) const { return has(key) ? count(key) : otherwise; }

JsonDocument::JsonDocument(std::string_view name, std::string_view text) : name_(name) {
  if (const std::string_view kind = base::kind_of_file(text); !kind.empty()) fail(GPTQ_E_FORMAT, "'", name, "' is ", kind);
  element root;
  const auto parse = [&](std::string_view json) {
    const auto error = parser_.allocate(std::max<size_t>(json.size(), 64), depth_max);
    return error ? error : parser_.parse(json.data(), json.size()).get(root);
  };
  auto error = parse(text);
  if (error && !parse(as_python_reads(text))) error = simdjson::SUCCESS;
  if (error) fail(GPTQ_E_FORMAT, "'", name, "' is no valid JSON: ", simdjson::error_message(error));
  if (root.get_object().get(root_)) fail(GPTQ_E_FORMAT, "'", name, "': the top level must be an object");
  check_duplicates(name_, root_);
}

JsonDocument JsonDocument::read(const std::string& path, std::string_view name, uint64_t bytes_max) {
  return JsonDocument(name, read_text(path, bytes_max));
}

std::string read_text(const std::string& path, uint64_t bytes_max) {
  const base::FileSource file(path);
  if (file.size() > bytes_max)
    fail(GPTQ_E_FORMAT, "'", path, "' has ", file.size(), " bytes, more than the ", bytes_max, " that such a file may have");
  std::string text(base::to_size(file.size()), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // Windows editors' mark of UTF-8
  if (text.starts_with("version https://git-lfs")) fail(GPTQ_E_FORMAT, "'", path, "' is ", base::kind_of_file(text));
  return text;
}

bool file_exists(const std::string& path) { return base::os::exists(path); }

void refuse_existing(const std::string& target, bool replace) {
  const base::os::Kind kind = base::os::kind_of(target);
  const char* const nowhere = kind == base::os::Kind::nothing ? " that leads nowhere" : "";
  if (base::os::is_link(target)) fail(GPTQ_E_IO, "'", target, "' is a link", nowhere, ": name the file it leads to");
  if (kind == base::os::Kind::folder || kind == base::os::Kind::other) fail(GPTQ_E_IO, "'", target, "' is not a regular file, and is not replaced");
  if (!replace && file_exists(target)) fail(GPTQ_E_IO, "'", target, "' exists already; --force replaces it");
}

}  // namespace gptq::convert
