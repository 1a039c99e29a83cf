// SPDX-License-Identifier: Apache-2.0
// Numbers of JSON as they are written: exact up to 36 digits.
#pragma once
#include <cstdint>
#include <string_view>

namespace gptq::text::constraint {

struct Decimal {
  __extension__ using Wide = __int128;
  Wide digits = 0;  // without zeros behind
  int32_t exponent = 0;

  static Decimal of(std::string_view text);
  static Decimal of(double value);
  bool is_integer() const { return exponent >= 0; }
  // Of 10^n that is above.
  int32_t magnitude() const;
  // Below 0, 0, above 0.
  static int compare(const Decimal& a, const Decimal& b);
  // of > 0.
  bool is_multiple(const Decimal& of) const;
};

}  // namespace gptq::text::constraint
