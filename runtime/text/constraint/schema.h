// SPDX-License-Identifier: Apache-2.0
// A JSON Schema (2020-12) as nodes: what each says of its own, and which others it applies in place or to children.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/constraint/decimal.h"
#include "text/constraint/nfa.h"

namespace gptq::text::jinja {
class Heap;
struct Value;
}  // namespace gptq::text::jinja

namespace gptq::text::constraint {

enum Types : uint8_t {
  type_null = 1,
  type_boolean = 2,
  type_integer = 4,
  type_number = 8,
  type_string = 16,
  type_array = 32,
  type_object = 64,
  type_any = 127
};

// Of numbers.
struct Bounds {
  std::optional<Decimal> least, most, above, below, multiple;
  bool limits() const { return least || most || above || below || multiple; }
  bool at_odds() const {
    for (const auto* low : {&least, &above})
      for (const auto* high : {&most, &below}) {
        if (!*low || !*high) continue;
        const int order = Decimal::compare(**low, **high);
        if (order > 0 || (order == 0 && (low == &above || high == &below))) return true;
      }
    return false;
  }
  // What both allow.
  void meet(const Bounds& other) {
    const auto take = [](std::optional<Decimal>& mine, const std::optional<Decimal>& its, int wanted) {
      if (its && (!mine || Decimal::compare(*its, *mine) == wanted)) mine = its;
    };
    take(least, other.least, 1), take(above, other.above, 1);
    take(most, other.most, -1), take(below, other.below, -1);
    if (other.multiple) multiple = multiple ? Decimal::common_multiple(*multiple, *other.multiple) : *other.multiple;
  }
};

struct SchemaNode : Bounds {
  static constexpr uint32_t none = ~0u;
  template <class T>
  using List = std::pmr::vector<T>;
  explicit SchemaNode(std::pmr::memory_resource* m)
      : all(m),
        any(m),
        one(m),
        numbers(m),
        values(m),
        properties(m),
        patterns(m),
        required(m),
        dependent_required(m),
        dependent_schemas(m),
        prefix(m),
        named(m) {}
  bool never = false;
  uint8_t types = type_any;
  bool digits_only = false;  // an integer has no point and no exponent
  bool types_alone = false;  // they are all that it says
  bool says_more = false;    // than types and what `all` has
  bool suspect = false;      // what it says may be at odds, or what it requires may
  uint32_t most_values = none;  // so many there are at most
  // Of the same value.
  List<uint32_t> all, any, one;
  uint32_t refuse = none, condition = none, then = none, otherwise = none;
  // One of: null, false, true (bits 1, 2, 4), numbers, strings (a rule), other values (nodes).
  bool has_enum = false;
  uint8_t literals = 0;
  List<Decimal> numbers;
  uint32_t strings = none, n_strings = 0;
  List<uint32_t> values;
  // Of strings; a pattern is a rule.
  uint32_t min_length = 0, max_length = none, pattern = none;
  // Of objects; names by number.
  List<std::pair<uint32_t, uint32_t>> properties, patterns;
  List<uint32_t> required;
  List<std::pair<uint32_t, uint32_t>> dependent_required, dependent_schemas;
  uint32_t additional = none, min_properties = 0, max_properties = none, names = none, unevaluated_properties = none;
  bool names_listed = false;  // propertyNames lists them: all are among `named`
  // Of arrays.
  List<uint32_t> prefix;
  uint32_t items = none, contains = none, min_contains = 1, max_contains = none, min_items = 0, max_items = none, unevaluated_items = none;
  bool unique = false;
  // Names as they came, those of properties first; named_last: what it applies in place before properties comes first.
  List<uint32_t> named;
  bool named_last = false;

  bool limits_numbers() const { return limits() || (has_enum && !numbers.empty()); }
  bool limits_strings() const { return min_length || max_length != none || pattern != none || has_enum; }
  // Under this name in properties.
  uint32_t child(uint32_t name) const {
    const auto at = std::lower_bound(properties.begin(), properties.end(), std::pair(name, 0u));
    return at != properties.end() && at->first == name ? at->second : none;
  }
};

// A schema within a source, at this JSON pointer; its own references start at itself.
// compact: no white space, keys in the schema's order, no needless escapes, integers as digits.
struct SchemaDocument {
  const jinja::Value* value;
  std::pmr::string pointer;
  bool compact = false;
};

struct Schema {
  Schema(jinja::Heap& heap, std::span<const SchemaDocument> documents, std::pmr::memory_resource* memory);
  static Schema of(std::string_view json, bool compact, std::pmr::memory_resource* memory);
  struct Never {
    uint32_t node;
    std::string_view keyword, reason;
    size_t root = 0;
  };
  // Of a root that no value fulfils, why.
  std::optional<Never> find_types(std::pmr::memory_resource* memory);
  std::pmr::vector<SchemaNode> nodes;
  std::pmr::vector<std::pmr::string> names;  // sorted
  Nfa patterns;
  struct Root {
    uint32_t node;
    bool compact;
  };
  std::pmr::vector<Root> roots;  // of the documents
};

}  // namespace gptq::text::constraint
