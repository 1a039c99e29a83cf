// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/decimal.h"

#include <charconv>
#include <utility>

namespace gptq::text::constraint {

Decimal Decimal::of(std::string_view text) {
  Decimal d;
  const bool negative = text.starts_with('-');
  int32_t taken = 0, point = 0;
  bool fraction = false;
  size_t i = negative;
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') { fraction = true; continue; }
    if (taken < digits_max) d.digits = d.digits * 10 + (text[i] - '0'), taken += d.digits != 0;
    else ++point, d.cut |= text[i] != '0';
    point -= fraction;
  }
  int32_t exponent = 0;
  if (i < text.size()) {
    i += 1 + (text.substr(i + 1).starts_with('+'));
    if (std::from_chars(text.data() + i, text.data() + text.size(), exponent).ec != std::errc())
      exponent = text[i] == '-' ? -100'000 : 100'000;
    if (exponent > 100'000) exponent = 100'000;
    if (exponent < -100'000) exponent = -100'000;
  }
  d.exponent = point + exponent;
  if (negative) d.digits = -d.digits;
  return d.shortened();
}

// Without zeros behind.
Decimal Decimal::shortened() const {
  Decimal d = *this;
  // In 64 bits where they fit, which is many times faster.
  const auto fits = [&] { return d.digits == static_cast<int64_t>(d.digits); };
  for (; !fits() && d.digits % 10 == 0; d.digits /= 10) ++d.exponent;
  if (fits()) {
    int64_t digits = static_cast<int64_t>(d.digits);
    for (; digits && digits % 10 == 0; digits /= 10) ++d.exponent;
    d.digits = digits;
  }
  if (!d.digits) d.exponent = 0;
  return d;
}

Decimal Decimal::of(double value) {
  char text[40];
  return of(std::string_view(text, static_cast<size_t>(std::to_chars(text, text + sizeof text, value).ptr - text)));
}

int32_t Decimal::magnitude() const {
  int32_t n = exponent;
  Wide d = digits < 0 ? -digits : digits;
  constexpr uint64_t large = 1'000'000'000'000'000'000;
  for (; d >= large; d /= large) n += 18;
  for (uint64_t rest = static_cast<uint64_t>(d), power = 1; power <= rest; power *= 10) ++n;
  return n;
}

int Decimal::compare(const Decimal& a, const Decimal& b) {
  const auto sign = [](Wide d) { return d < 0 ? -1 : d > 0; };
  if (sign(a.digits) != sign(b.digits) || !a.digits) return sign(a.digits) - sign(b.digits);
  if (a.exponent == b.exponent) return a.digits < b.digits ? -1 : a.digits > b.digits;
  const int32_t ma = a.magnitude(), mb = b.magnitude();
  if (ma != mb) return (ma < mb) == (a.digits > 0) ? -1 : 1;
  Wide x = a.digits, y = b.digits;
  for (int32_t e = a.exponent; e > b.exponent; --e) x *= 10;
  for (int32_t e = b.exponent; e > a.exponent; --e) y *= 10;
  return x < y ? -1 : x > y;
}

Decimal Decimal::common_multiple(Decimal a, Decimal b) {
  if (compare(a, b) < 0) std::swap(a, b);
  constexpr Wide most = Wide{1'000'000'000'000'000'000} * 1'000'000'000'000'000'000;
  const Decimal greater = a;
  for (; a.exponent > b.exponent; --a.exponent)
    if ((a.digits *= 10) >= most) return greater;
  for (; b.exponent > a.exponent; --b.exponent)
    if ((b.digits *= 10) >= most) return greater;
  Wide divisor = a.digits;
  for (Wide rest = b.digits; rest;) divisor = std::exchange(rest, divisor % rest);
  a.digits /= divisor;
  if (a.digits > most / b.digits) return greater;
  a.digits *= b.digits;
  return a.shortened();
}

bool Decimal::is_multiple(const Decimal& of) const {
  if (!digits) return true;
  if (exponent < of.exponent) return false;
  Wide rest = digits % of.digits;
  // A ten more brings another two and five: more than it has bits cannot help.
  Wide left = of.digits;
  for (int32_t e = exponent; rest && left && e > of.exponent; --e, left >>= 1) rest = rest * 10 % of.digits;
  return rest == 0;
}

}  // namespace gptq::text::constraint
