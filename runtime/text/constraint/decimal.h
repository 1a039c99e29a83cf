// SPDX-License-Identifier: Apache-2.0
// Numbers of JSON as they are written: exact up to 36 digits.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string_view>

namespace gptq::text::constraint {

struct Decimal {
  __extension__ using Wide = __int128;
  Wide digits = 0;  // without zeros behind
  int32_t exponent = 0;
  bool cut = false;  // digits beyond these, which are not 0, are left out
  static constexpr int32_t digits_max = 36;

  static Decimal of(std::string_view text);
  static Decimal of(double value);
  bool is_integer() const { return exponent >= 0; }
  // Of 10^n that is above.
  int32_t magnitude() const;
  Decimal shortened() const;
  // Of the shortest text without an exponent.
  int32_t written() const { return (digits < 0) + std::max(magnitude(), 1) + (exponent < 0 ? 1 - exponent : 0); }
  // Below 0, 0, above 0.
  static int compare(const Decimal& a, const Decimal& b);
  // of > 0.
  bool is_multiple(const Decimal& of) const;
  // The least of both, which are above 0; where it has too many digits, the greater of the two.
  static Decimal common_multiple(Decimal a, Decimal b);
};

}  // namespace gptq::text::constraint
