// SPDX-License-Identifier: Apache-2.0
// Sets of characters, as a regular expression's classes are.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace gptq::convert::regex {

constexpr uint32_t code_end = 0x110000;

class Set {
 public:
  struct Range {
    uint32_t first, last;
    auto operator<=>(const Range&) const = default;
  };

  Set() = default;
  Set(uint32_t first, uint32_t last) : ranges_{{first, last}} {}
  explicit Set(std::vector<Range> ranges);
  static Set all() { return {0, code_end - 1}; }

  void add(const Set& other);
  Set inverted() const;
  Set intersected(const Set& other) const;
  Set without(const Set& other) const { return intersected(other.inverted()); }
  bool contains(uint32_t code) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }  // in order, neither touching nor overlapping
  auto operator<=>(const Set&) const = default;

 private:
  std::vector<Range> ranges_;
};

// A category or script by name, as Lu, L, Han, or of a POSIX class, as alnum; in any letter case. Nothing where the name is not known.
std::optional<Set> named_set(std::string_view name);
Set space_set();        // \s
Set word_set();         // \w
Set punctuation_set();  // the step Punctuation
Set digits_set();       // the step Digits
// Both cases of every ASCII letter in it, and U+017F and U+212A, which fold to s and k.
Set without_case(const Set& set);

}  // namespace gptq::convert::regex
