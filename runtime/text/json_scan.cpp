// SPDX-License-Identifier: Apache-2.0
#include "text/json_scan.h"

#include <string_view>

namespace gptq::text {
namespace {

bool is_decimal(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_decimal(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

JsonScan::Result JsonScan::behind_value() {
  state_ = depth_ ? State::behind : State::done;
  return depth_ ? Result::more : Result::done;
}

JsonScan::Result JsonScan::open(bool object) {
  if (depth_ == depth_max) return Result::bad;
  objects_ = (objects_ & ~(uint64_t{1} << depth_)) | uint64_t{object} << depth_;
  ++depth_;
  state_ = object ? State::first_key : State::first_value;
  return Result::more;
}

JsonScan::Result JsonScan::close(bool object) {
  if (!depth_ || in_object() != object) return Result::bad;
  --depth_;
  return behind_value();
}

JsonScan::Result JsonScan::begin_value(char c) {
  const auto go = [&](State state) {
    state_ = state;
    return Result::more;
  };
  if (c == '{' || c == '[') return open(c == '{');
  if (c == '"') return key_ = false, go(State::string);
  if (c == '-') return go(State::minus);
  if (c == '0') return go(State::zero);
  if (is_decimal(c)) return go(State::whole);
  literal_ = c == 't' ? "rue" : c == 'f' ? "alse" : c == 'n' ? "ull" : nullptr;
  return literal_ ? go(State::literal) : Result::bad;
}

// What ends a number is looked at again as what follows it.
JsonScan::Result JsonScan::number(char c) {
  const auto go = [&](State state) {
    state_ = state;
    return Result::more;
  };
  switch (state_) {
    case State::minus:
      return c == '0' ? go(State::zero) : is_decimal(c) ? go(State::whole) : Result::bad;
    case State::point:
      return is_decimal(c) ? go(State::fraction) : Result::bad;
    case State::exponent:
      if (c == '+' || c == '-') return go(State::exponent_sign);
      [[fallthrough]];
    case State::exponent_sign:
      return is_decimal(c) ? go(State::exponent_digits) : Result::bad;
    case State::whole:
      if (is_decimal(c)) return Result::more;
      [[fallthrough]];
    case State::zero:
      if (c == '.') return go(State::point);
      if (c == 'e' || c == 'E') return go(State::exponent);
      break;
    case State::fraction:
      if (is_decimal(c)) return Result::more;
      if (c == 'e' || c == 'E') return go(State::exponent);
      break;
    default:
      if (is_decimal(c)) return Result::more;
  }
  if (!depth_) return Result::bad;
  state_ = State::behind;
  return feed(c);
}

JsonScan::Result JsonScan::feed(char c) {
  const auto go = [&](State state) {
    state_ = state;
    return Result::more;
  };
  switch (state_) {
    case State::string:
      if (c == '"') return key_ ? go(State::colon) : behind_value();
      if (c == '\\') return go(State::escape);
      return static_cast<unsigned char>(c) < 0x20 ? Result::bad : Result::more;
    case State::escape:
      if (c == 'u') return n_hex_ = 4, go(State::hex);
      return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos ? go(State::string) : Result::bad;
    case State::hex:
      if (!is_hex(c)) return Result::bad;
      return --n_hex_ ? Result::more : go(State::string);
    case State::literal:
      if (c != *literal_) return Result::bad;
      return *++literal_ ? Result::more : behind_value();
    case State::done:
      return Result::bad;
    default:
      break;
  }
  if (state_ >= State::minus) return number(c);
  if (is_json_space(c)) return Result::more;
  switch (state_) {
    case State::first_value:
      if (c == ']') return close(false);
      [[fallthrough]];
    case State::value:
      return begin_value(c);
    case State::first_key:
      if (c == '}') return close(true);
      [[fallthrough]];
    case State::key:
      if (c != '"') return Result::bad;
      key_ = true;
      return go(State::string);
    case State::colon:
      return c == ':' ? go(State::value) : Result::bad;
    default:
      if (c == ',') return go(in_object() ? State::key : State::value);
      return c == '}' || c == ']' ? close(c == '}') : Result::bad;
  }
}

}  // namespace gptq::text
