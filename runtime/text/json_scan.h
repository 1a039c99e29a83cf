// SPDX-License-Identifier: Apache-2.0
// Whether a text is one JSON value (RFC 8259), byte by byte as it grows.
#pragma once
#include <cstdint>

namespace gptq::text {

constexpr bool is_json_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

class JsonScan {
 public:
  static constexpr uint32_t depth_max = 64;
  // The value is complete; it goes on; it cannot be JSON any more. A number is complete only by what follows it: see
  // ended.
  enum class Result : uint8_t { done, more, bad };
  Result feed(char c);
  // Whether the text is a whole value if it ends here.
  bool ended() const { return state_ == State::done || (depth_ == 0 && in_whole_number()); }

  // Where the next byte stands.
  uint32_t depth() const { return depth_; }
  bool in_string() const { return state_ == State::string || state_ == State::escape || state_ == State::hex; }
  bool in_key() const { return in_string() && key_; }
  bool awaits_value() const { return state_ == State::value || state_ == State::first_value; }

 private:
  enum class State : uint8_t {
    value,
    first_value,
    first_key,
    key,
    colon,
    behind,
    string,
    escape,
    hex,
    minus,
    zero,
    whole,
    point,
    fraction,
    exponent,
    exponent_sign,
    exponent_digits,
    literal,
    done
  };
  Result begin_value(char c);
  Result open(bool object);
  Result close(bool object);
  Result behind_value();
  bool in_object() const { return depth_ && objects_ >> (depth_ - 1) & 1; }
  bool in_whole_number() const {
    return state_ == State::zero || state_ == State::whole || state_ == State::fraction ||
           state_ == State::exponent_digits;
  }
  Result number(char c);

  State state_ = State::value;
  bool key_ = false;   // the string is one
  uint8_t n_hex_ = 0;  // digits of an escape that are still to come
  uint32_t depth_ = 0;
  uint64_t objects_ = 0;           // a bit for each level
  const char* literal_ = nullptr;  // what is still to come
};

}  // namespace gptq::text
