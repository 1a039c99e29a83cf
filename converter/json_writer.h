// SPDX-License-Identifier: Apache-2.0
// JSON text, put together from keys and values in the order in which they are given.
#pragma once
#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>

namespace gptq::convert {

// "text", escaped. Other characters than ASCII stay as they are; what is no UTF-8 becomes U+FFFD.
std::string json_quoted(std::string_view text);
// The shortest digits that are read back as the same number.
std::string json_number(double value);
std::string json_number(float value);

class JsonWriter {
 public:
  JsonWriter& add_raw(std::string_view key, std::string_view json);
  JsonWriter& add(std::string_view key, std::string_view value) { return add_raw(key, json_quoted(value)); }
  JsonWriter& add(std::string_view key, const char* value) { return add(key, std::string_view(value)); }
  template <std::integral T>
  JsonWriter& add(std::string_view key, T value) {
    if constexpr (std::same_as<T, bool>) return add_raw(key, value ? "true" : "false");
    else return add_raw(key, std::to_string(value));
  }
  template <std::floating_point T>
  JsonWriter& add(std::string_view key, T value) { return add_raw(key, json_number(value)); }

  bool empty() const { return text_.empty(); }
  std::string object() const { return empty() ? "{}" : "{" + text_ + "\n}"; }

 private:
  std::string text_;
};

// [a, b, c] of values that are JSON already.
template <class List, class ToJson>
std::string json_list(const List& list, const ToJson& to_json) {
  std::string out = "[";
  for (const auto& item : list) out.append(out.size() > 1 ? ", " : "").append(to_json(item));
  return out + "]";
}

}  // namespace gptq::convert
