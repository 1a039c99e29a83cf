// SPDX-License-Identifier: Apache-2.0
// JSON that is known to be good.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

class Json {
 public:
  enum Kind { null, boolean, number, text, list, object };
  Json() = default;
  Json(bool value) : kind(boolean), real(value) {}
  Json(double value) : kind(number), real(value) {}
  Json(std::string value) : kind(text), string(std::move(value)) {}
  Json(const std::vector<int32_t>& ids) : kind(list) {
    for (const int32_t id : ids) items.emplace_back(double(id));
  }
  Json(std::map<std::string, Json> value) : kind(object), members(std::move(value)) {}

  static Json parse(const std::string& text) {
    const char* at = text.c_str();
    return value(at);
  }
  const Json& operator[](const char* name) const {
    static const Json none;
    const auto found = members.find(name);
    return found == members.end() ? none : found->second;
  }
  bool is_true() const { return kind == boolean && real != 0; }
  std::vector<int32_t> ids() const {
    std::vector<int32_t> out;
    for (const Json& item : items) out.push_back(int32_t(item.real));
    return out;
  }
  // Numbers that processors compute differ in their last digits.
  bool operator==(const Json& b) const {
    return kind == b.kind && std::abs(real - b.real) <= 1e-4 * std::max(1.0, std::abs(b.real)) && string == b.string && items == b.items && members == b.members;
  }
  std::string show() const {
    if (kind == text) return string;
    if (kind != list) return std::to_string(real);
    std::string all;
    for (const Json& item : items) all += item.show() + " ";
    return all;
  }

  Kind kind = null;
  double real = 0;
  std::string string;
  std::vector<Json> items;
  std::map<std::string, Json> members;

 private:
  static bool take(const char*& at, char c) {
    while (*at == ' ' || *at == '\n') ++at;
    return *at == c && ++at;
  }
  static std::string quoted(const char*& at) {
    std::string out;
    for (; *at != '"'; ++at) {
      if (*at == '\\') ++at;
      out += *at;
    }
    ++at;
    return out;
  }
  static Json value(const char*& at) {
    if (take(at, '"')) return quoted(at);
    if (take(at, '{')) {
      Json out(std::map<std::string, Json>{});
      while (!take(at, '}')) {
        take(at, '"');
        std::string name = quoted(at);
        take(at, ':');
        out.members.emplace(std::move(name), value(at));
        take(at, ',');
      }
      return out;
    }
    if (take(at, '[')) {
      Json out(std::vector<int32_t>{});
      while (!take(at, ']')) {
        out.items.push_back(value(at));
        take(at, ',');
      }
      return out;
    }
    if (*at == 't') return at += 4, Json(true);
    if (*at == 'f') return at += 5, Json(false);
    char* end = nullptr;
    const double real = std::strtod(at, &end);
    at = end;
    return real;
  }
};
