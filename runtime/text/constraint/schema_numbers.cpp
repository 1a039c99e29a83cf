// SPDX-License-Identifier: Apache-2.0
// Numbers in progress: whether the digits that are there can become one that a node allows.
#include <algorithm>
#include <charconv>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {
namespace {

// Magnitudes from low up to high, with low; high itself only where it is the same.
struct Reach {
  Decimal low, high;
  bool contains(const Decimal& d) const {
    const int above = Decimal::compare(d, low);
    return above == 0 || (above > 0 && Decimal::compare(d, high) < 0);
  }
};

// The digits as they are written, with zeros behind. text: no sign, no exponent.
Decimal as_written(std::string_view text) {
  Decimal d = Decimal::of(text);
  const size_t point = text.find('.');
  const int32_t exponent = point == std::string_view::npos ? 0 : -static_cast<int32_t>(text.size() - point - 1);
  if (!d.digits) d.exponent = exponent;
  for (; d.exponent > exponent; --d.exponent) d.digits *= 10;
  return d;
}

Decimal negated(Decimal d) {
  d.digits = -d.digits;
  return d;
}

// Whether some number of the reach, with its sign, is within the node's bounds and a multiple; where they are counted, one that is none of
// n_taken others.
template <class IsTaken>
bool meets(const Bounds& n, const Reach& reach, bool negative, bool whole, size_t n_taken, IsTaken&& is_taken) {
  const bool point = Decimal::compare(reach.low, reach.high) == 0;
  Decimal low = negative ? negated(reach.high) : reach.low, high = negative ? negated(reach.low) : reach.high;
  bool low_open = negative && !point, high_open = !negative && !point;
  const auto raise = [&](const Decimal& bound, bool open) {
    const int order = Decimal::compare(bound, low);
    if (order > 0) low = bound, low_open = open;
    else if (order == 0) low_open |= open;
  };
  const auto lower = [&](const Decimal& bound, bool open) {
    const int order = Decimal::compare(bound, high);
    if (order < 0) high = bound, high_open = open;
    else if (order == 0) high_open |= open;
  };
  if (n.least) raise(*n.least, false);
  if (n.above) raise(*n.above, true);
  if (n.most) lower(*n.most, false);
  if (n.below) lower(*n.below, true);
  const int order = Decimal::compare(low, high);
  if (order > 0 || (order == 0 && (low_open || high_open))) return false;
  if (!n.multiple && !whole) return true;
  // The first multiple from low on, in units of the finest digit of all.
  Decimal step = n.multiple ? *n.multiple : Decimal{1, 0};
  if (whole && step.exponent < 0) step = Decimal::common_multiple(step, {1, 0});
  const int32_t unit = std::min({low.exponent, high.exponent, step.exponent});
  const auto scaled = [&](const Decimal& d, Decimal::Wide& out) {
    out = d.digits;
    if (!out) return true;
    if (d.magnitude() - unit > 37) return false;
    for (int32_t e = d.exponent; e > unit; --e) out *= 10;
    return true;
  };
  Decimal::Wide first, last, by;
  if (!scaled(low, first) || !scaled(high, last) || !scaled(step, by)) return true;
  Decimal::Wide rest = first % by;
  if (rest < 0) rest += by;
  if (rest) first += by - rest;
  else if (low_open) first += by;
  for (size_t i = 0; first < last || (first == last && !high_open); first += by)
    if (Decimal d{first, unit}; i++ == n_taken || !is_taken(d.shortened())) return true;
  return false;
}

}  // namespace

// Phases of a number: 0 -, 1 a first 0, 2 digits, 3 the point, 4 digits behind it, 5 e, 6 its sign, 7 its digits. + 16: a digit behind the
// point that is not 0; + 32: a negative exponent.
SchemaMachine::Truth SchemaMachine::own_number(uint32_t at, const Plan& plan) const {
  const SchemaNode& n = node(at);
  if (!(n.types & (type_integer | type_number))) return no;
  if (n.has_enum && n.numbers.empty()) return no;
  const bool only_integers = !(n.types & type_number);
  if (only_integers && n.digits_only && (phase_ & 15) >= 3) return no;
  if (!n.limits_numbers() && only_integers && text_size_ > 1 && (phase_ & 15) >= 5) return final_ ? (number_holds(n, Decimal::of(std::string_view(text_, text_size_))) ? yes : no) : exponent_possible(n) ? open : no;
  if (!n.limits_numbers() || (phase_ & 64)) {
    if (!only_integers) return yes;
    return phase_ & 48 ? no : final_ || (phase_ & 15) >= 6 || !(plan.types & type_number) ? yes : open;
  }
  if (!final_) return number_possible(n, View(&at, 1), only_integers) ? open : no;
  return number_holds(n, Decimal::of(std::string_view(text_, text_size_))) ? yes : no;
}

// Whether it is, or can become, another than those that are taken; where some are it has no exponent.
bool SchemaMachine::number_new(const Plan& plan) const {
  const uint32_t phase = phase_ & 15;
  const bool stays = text_size_ == number_bytes || (!(plan.types & type_number) && (phase == 1 || phase == 3 || phase == 4));
  return taken_.empty() || !stays || !is_taken(hash_of(Decimal::of(std::string_view(text_, text_size_))), taken_);
}

bool SchemaMachine::number_holds(const SchemaNode& n, const Decimal& d) {
  bool holds = (n.types & type_number) || d.is_integer();
  if (n.least) holds &= Decimal::compare(d, *n.least) >= 0;
  if (n.most) holds &= Decimal::compare(d, *n.most) <= 0;
  if (n.above) holds &= Decimal::compare(d, *n.above) > 0;
  if (n.below) holds &= Decimal::compare(d, *n.below) < 0;
  if (n.multiple) holds &= d.is_multiple(*n.multiple);
  if (n.has_enum) holds &= std::any_of(n.numbers.begin(), n.numbers.end(), [&](const Decimal& x) { return Decimal::compare(d, x) == 0; });
  return holds;
}

// Whether an exponent of at most three digits that begins as the one in progress is good.
template <class F>
bool SchemaMachine::some_exponent(F&& good) const {
  const std::string_view text(text_, text_size_);
  std::string_view typed = text.substr(text.find_first_of("eE") + 1);
  const bool sign_open = typed.empty(), negative = phase_ & 32;
  if (!typed.empty() && (typed[0] == '+' || typed[0] == '-')) typed.remove_prefix(1);
  const size_t digits_max = std::min<size_t>(3, typed.size() + number_bytes - text_size_);
  if (typed.size() > digits_max) return false;
  int32_t begin = 0, width = 1;
  for (const char c : typed) begin = begin * 10 + (c - '0');
  for (size_t more = 0; more + typed.size() <= digits_max; ++more, begin *= 10, width *= 10) {
    if (more == 0 && typed.empty()) continue;  // a digit is wanted
    for (int32_t i = 0; i < width; ++i)
      for (const int sign : {1, -1})
        if ((sign_open || (sign < 0) == negative) && good(sign * (begin + i))) return true;
  }
  return false;
}

bool SchemaMachine::exponent_possible(const SchemaNode& n) const {
  const Decimal mantissa = Decimal::of(std::string_view(text_, std::find_if(text_, text_ + text_size_, [](char c) { return (c | 32) == 'e'; })));
  return some_exponent([&](int32_t exponent) {
    Decimal d = mantissa;
    if (d.digits) d.exponent += exponent;
    return number_holds(n, d);
  });
}

// Whether one makes it good for all nodes at once, and for those around.
bool SchemaMachine::exponent_bearable(uint32_t frame, uint32_t plan) {
  const uint32_t size = text_size_, phase = phase_;
  char before[sizeof(text_)];
  std::copy_n(text_, sizeof(text_), before);
  char* const digits = std::find_if(text_, text_ + size, [](char c) { return (c | 32) == 'e'; }) + 1;
  const bool found = some_exponent([&](int32_t exponent) {
    text_size_ = static_cast<uint32_t>(std::to_chars(digits, text_ + sizeof(text_), exponent).ptr - text_);
    phase_ = (phase & ~47u) | 7 | (exponent < 0 ? 32 : 0);
    const bool good = judge(plan, number, true) && bearable(frame, plan);
    std::copy_n(before, sizeof(text_), text_);
    text_size_ = size, phase_ = phase;
    return good;
  });
  judge(plan, number, false);
  return found;
}

// Whether more digits, of which some still have place, can make it good.
bool SchemaMachine::number_possible(const Bounds& bounds, View nodes, bool only_integers) const {
  const uint32_t phase = phase_ & 15, place = number_bytes - text_size_;
  if (phase >= 5) return nodes.size() != 1 || exponent_possible(node(nodes[0]));
  if (only_integers && (phase_ & 16)) return false;
  const bool negative = text_[0] == '-';
  std::string_view text(text_ + negative, text_size_ - negative);
  if (phase == 3 && !place) return false;
  if (phase == 3) text.remove_suffix(1);
  const auto good = [&](const Reach& reach) {
    if (!meets(bounds, reach, negative, only_integers, taken_.size() / 2, [&](const Decimal& d) { return is_taken(hash_of(d), taken_); })) return false;
    const auto listing = std::ranges::find_if(nodes, [&](uint32_t at) { return node(at).has_enum; });
    return listing == nodes.end() || std::ranges::any_of(node(*listing).numbers, [&](const Decimal& x) {
      return !is_taken(hash_of(x), taken_) && (x.digits < 0) == (negative && x.digits) && reach.contains(x.digits < 0 ? negated(x) : x) &&
             std::ranges::all_of(nodes, [&](uint32_t at) { return number_holds(node(at), x); });
    });
  };
  if (phase == 0) return place && good({{}, {1, 1'000'000}});
  const Decimal low = as_written(text);
  Decimal high = low;
  const bool more = phase >= 3 ? place && !only_integers : place > 1 && !only_integers;  // behind a point
  if (more) ++high.digits;
  if (good({low, high})) return true;
  if (phase != 2) return false;
  for (uint32_t k = 1; k <= place; ++k) {
    Reach longer{low, low};
    longer.low.exponent += static_cast<int32_t>(k);
    longer.high.exponent += static_cast<int32_t>(k);
    ++longer.high.digits;
    const std::optional<Decimal>& end = negative ? bounds.least : bounds.most;
    if (end && low.digits && Decimal::compare(longer.low, negative ? negated(*end) : *end) > 0) break;
    if (good(longer)) return true;
  }
  return false;
}

uint64_t SchemaMachine::hash_of(const Decimal& d) {
  return mix(mix(mix(4, static_cast<uint64_t>(d.digits)), static_cast<uint64_t>(d.digits >> 64)), static_cast<uint64_t>(d.exponent));
}

// Whether it holds with any digits that may follow, and none that may follow is wanted: its text need not be kept.
bool SchemaMachine::number_certain(const SchemaNode& n) const {
  if (!n.limits_numbers()) return true;
  if (n.multiple || n.has_enum || n.most || n.below || text_[0] == '-') return false;
  const Decimal d = Decimal::of(std::string_view(text_, text_size_));
  return (!n.least || Decimal::compare(d, *n.least) >= 0) && (!n.above || Decimal::compare(d, *n.above) > 0);
}

}  // namespace gptq::text::constraint
