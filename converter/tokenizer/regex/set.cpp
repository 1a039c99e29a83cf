// SPDX-License-Identifier: Apache-2.0
#include "converter/tokenizer/regex/set.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <span>
#include <string>

#include "converter/tokenizer/regex/characters.h"

namespace gptq::convert::regex {
namespace {

// All categories that begin so: "L" is all letters.
Set category(std::string_view prefix) {
  std::vector<Set::Range> ranges;
  for (size_t i = 0; i < std::size(category_changes); ++i) {
    if (!category_names[category_changes[i] & 0xFF].starts_with(prefix)) continue;
    const uint32_t next = i + 1 < std::size(category_changes) ? category_changes[i + 1] >> 8 : code_end;
    ranges.push_back({category_changes[i] >> 8, next - 1});
  }
  return Set(std::move(ranges));
}

Set of_pairs(std::span<const uint32_t> firsts_and_lasts) {
  std::vector<Set::Range> ranges;
  for (size_t i = 0; i + 1 < firsts_and_lasts.size(); i += 2) ranges.push_back({firsts_and_lasts[i], firsts_and_lasts[i + 1]});
  return Set(std::move(ranges));
}

struct Script {
  std::string_view name;
  std::span<const uint32_t> ranges;
};

constexpr Script scripts[] = {{"alpha", posix_alpha}, {"upper", posix_upper}, {"lower", posix_lower}, {"arabic", script_arabic},     {"bengali", script_bengali}, {"cyrillic", script_cyrillic},
                              {"devanagari", script_devanagari}, {"greek", script_greek},     {"han", script_han},
                              {"hangul", script_hangul},     {"hebrew", script_hebrew},   {"hiragana", script_hiragana},
                              {"katakana", script_katakana}, {"latin", script_latin},     {"thai", script_thai}};

struct LongName {
  std::string_view name, category;
};

constexpr LongName long_names[] = {
    {"letter", "L"}, {"uppercaseletter", "Lu"}, {"lowercaseletter", "Ll"},
    {"mark", "M"},        {"number", "N"},       {"decimalnumber", "Nd"},   {"digit", "Nd"},          {"punctuation", "P"},      {"symbol", "S"},
    {"separator", "Z"},   {"other", "C"},        {"cntrl", "Cc"},           {"titlecaseletter", "Lt"}, {"modifierletter", "Lm"},  {"otherletter", "Lo"},
};

Set united(std::initializer_list<Set> parts) {
  Set out;
  for (const Set& part : parts) out.add(part);
  return out;
}

}  // namespace

Set::Set(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  for (const Range& range : ranges)
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) ranges_.back().last = std::max(ranges_.back().last, range.last);
    else ranges_.push_back(range);
}

void Set::add(const Set& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  *this = Set(std::move(ranges_));
}

Set Set::inverted() const {
  Set out;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) out.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next < code_end) out.ranges_.push_back({next, code_end - 1});
  return out;
}

Set Set::intersected(const Set& other) const {
  Set both = inverted();
  both.add(other.inverted());
  return both.inverted();
}

bool Set::contains(uint32_t code) const {
  const auto after = std::upper_bound(ranges_.begin(), ranges_.end(), code, [](uint32_t c, const Range& range) { return c < range.first; });
  return after != ranges_.begin() && std::prev(after)->last >= code;
}

Set space_set() { return united({category("Z"), {9, 13}, {0x85, 0x85}}); }
Set word_set() { return united({of_pairs(posix_alpha), category("M"), category("Nd"), category("Pc")}); }
Set digits_set() { return united({category("N"), of_pairs(late_digits)}); }

Set punctuation_set() {
  Set out = category("P");
  for (const char c : std::string_view("$+<=>^`|~")) out.add({static_cast<uint32_t>(c), static_cast<uint32_t>(c)});
  out.add(of_pairs(early_punctuation));
  return out.without(of_pairs(late_punctuation));
}

std::optional<Set> named_set(std::string_view name) {
  std::string key;
  for (const char c : name)
    if (c != '_' && c != ' ' && c != '-') key.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  for (const Script& script : scripts)
    if (script.name == key) return of_pairs(script.ranges);
  if (key == "any") return Set::all();
  if (key == "space" || key == "whitespace") return space_set();
  if (key == "word") return word_set();
  if (key == "ascii") return Set(0, 0x7F);
  if (key == "alnum") return united({of_pairs(posix_alpha), category("Nd")});
  if (key == "punct") return united({category("P"), category("S")});
  if (key == "blank") return united({category("Zs"), {9, 9}});
  if (key == "xdigit") return united({{'0', '9'}, {'A', 'F'}, {'a', 'f'}});
  for (const LongName& known : long_names)
    if (known.name == key) return category(known.category);
  if (key.empty() || key.size() > 2) return {};
  key[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(key[0])));
  Set out = category(key);
  if (out.empty()) return {};
  return out;
}

Set without_case(const Set& set) {
  Set out = set;
  for (uint32_t c = 'a'; c <= 'z'; ++c) {
    const uint32_t folds_too = c == 's' ? 0x17F : c == 'k' ? 0x212A : c;
    if (!set.contains(c) && !set.contains(c - 'a' + 'A') && !set.contains(folds_too)) continue;
    for (const uint32_t other : {c, c - 'a' + 'A', folds_too}) out.add({other, other});
  }
  return out;
}

}  // namespace gptq::convert::regex
