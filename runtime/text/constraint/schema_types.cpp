// SPDX-License-Identifier: Apache-2.0
// Which types of values a node can hold at all; those that cannot be are taken from its own, and a node that is left with none never holds.
#include <algorithm>
#include <bit>

#include "text/constraint/schema.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t absent = SchemaNode::none;

class Finder {
 public:
  explicit Finder(std::pmr::vector<SchemaNode>& nodes, std::pmr::memory_resource* memory)
      : nodes_(nodes), types_(nodes.size(), 0, memory), values_(nodes.size(), 0, memory) {}
  // From nothing upwards, so that what only holds with itself inside does not hold. Children mostly come after those that name them.
  bool find() {
    constexpr int passes_max = 200;
    bool news = true;
    for (int pass = 0; pass < passes_max && news; ++pass) {
      news = false;
      for (uint32_t i = static_cast<uint32_t>(nodes_.size()); i-- > 0;)
        if (const uint8_t found = of(nodes_[i]); found != types_[i]) types_[i] = found, news = true;
      for (uint32_t i = static_cast<uint32_t>(nodes_.size()); i-- > 0;)
        if (const uint32_t found = values(i); found != values_[i]) values_[i] = found, news = true;
    }
    return !news;
  }
  void set() const {
    for (uint32_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i].says_more = says_more(nodes_[i]);
      nodes_[i].types_alone = !nodes_[i].says_more && nodes_[i].all.empty();
      nodes_[i].types = types_[i];
      nodes_[i].most_values = values_[i];
      nodes_[i].never |= types_[i] == 0;
    }
    for (int pass = 0; pass < 2; ++pass)
      for (uint32_t i = static_cast<uint32_t>(nodes_.size()); i-- > 0;) nodes_[i].suspect |= suspect(nodes_[i]);
  }

  bool never(uint32_t i) const { return i != absent && types_[i] == 0; }
  // The node by which one never holds, and why.
  Schema::Never why(uint32_t i, int depth = 0) const {
    const SchemaNode& n = nodes_[i];
    const auto of = [&](uint32_t to) { return never(to) && !n.never; };
    if (n.never) return {i, "", "it is false"};
    if (depth == 64) return {i, "", "it wants itself without end"};
    unsigned types = n.types;
    for (const uint32_t to : n.all) {
      if (of(to)) return why(to, depth + 1);
      types &= types_[to];
    }
    if (!types) return {i, "", "what it says of one value has no type in common"};
    for (const auto& [list, keyword] : {std::pair(&n.any, "anyOf"), {&n.one, "oneOf"}}) {
      if (list->size() == 1 && of(list->front())) return why(list->front(), depth + 1);
      if (!list->empty() && !(types & any(*list))) return {i, keyword, "none of them can hold"};
    }
    if (n.has_enum && !(types & listed(n))) return {i, "", n.literals || n.strings != absent || !n.numbers.empty() || !n.values.empty() ? "its type is none of its values'" : "enum is empty"};
    if ((types & type_string) && n.min_length > n.max_length) return {i, "minLength", "it is above maxLength"};
    if ((types & (type_number | type_integer)) && n.at_odds()) return {i, n.least ? "minimum" : "exclusiveMinimum", "it is above what the maximum allows"};
    if ((types & type_array) && no_array(n)) {
      if (n.min_items > n.max_items) return {i, "minItems", "it is above maxItems"};
      for (uint32_t k = 0; k < n.min_items && k < n.prefix.size(); ++k)
        if (of(n.prefix[k])) return why(n.prefix[k], depth + 1);
      if (of(n.contains)) return why(n.contains, depth + 1);
      if (n.contains != absent && (n.min_contains > n.max_contains || n.min_contains > n.max_items)) return {i, "contains", "it wants more items than there may be"};
      if (too_alike(n)) return {i, "uniqueItems", "there are fewer values than items are wanted"};
      return {i, "items", "none is allowed, and some are wanted"};
    }
    if ((types & type_object) && no_object(n)) {
      if (n.min_properties > n.max_properties) return {i, "minProperties", "it is above maxProperties"};
      if (n.required.size() > n.max_properties) return {i, "required", "it has more names than maxProperties"};
      for (const uint32_t name : n.required)
        if (const uint32_t child = n.child(name); of(child)) return why(child, depth + 1);
      return {i, n.required.empty() ? "minProperties" : "required", "what it wants is not allowed"};
    }
    return {i, "", "its keywords are at odds"};
  }

 private:
  unsigned listed(const SchemaNode& n) const {
    unsigned types = any(n.values);
    if (n.literals & 1) types |= type_null;
    if (n.literals & 6) types |= type_boolean;
    if (!n.numbers.empty()) types |= type_integer;
    if (std::any_of(n.numbers.begin(), n.numbers.end(), [](const Decimal& d) { return !d.is_integer(); })) types |= type_number;
    if (n.strings != absent) types |= type_string;
    return types;
  }
  uint8_t any(const SchemaNode::List<uint32_t>& list) const {
    uint8_t types = 0;
    for (const uint32_t i : list) types |= types_[i];
    return types;
  }
  uint8_t of(const SchemaNode& n) const {
    if (n.never) return 0;
    unsigned types = n.types;
    for (const uint32_t i : n.all) types &= types_[i];
    if (!n.any.empty()) types &= any(n.any);
    if (!n.one.empty()) types &= any(n.one);
    if (n.condition != absent) types &= (n.then == absent ? 255u : types_[n.then]) | (n.otherwise == absent ? 255u : types_[n.otherwise]);
    if (n.has_enum) types &= listed(n);
    if (n.at_odds()) types &= ~unsigned{type_number | type_integer};
    if (n.min_length > n.max_length) types &= ~unsigned{type_string};
    if (no_array(n)) types &= ~unsigned{type_array};
    if (no_object(n)) types &= ~unsigned{type_object};
    return static_cast<uint8_t>(types & type_any);
  }
  static bool says_more(const SchemaNode& n) {
    const bool others = !n.any.empty() || !n.one.empty() || n.refuse != absent || n.condition != absent || n.has_enum || n.digits_only;
    const bool objects = !n.properties.empty() || !n.patterns.empty() || !n.required.empty() || !n.dependent_required.empty() || !n.dependent_schemas.empty() ||
                         n.additional != absent || n.min_properties || n.max_properties != absent || n.names != absent || n.unevaluated_properties != absent;
    const bool arrays = !n.prefix.empty() || n.items != absent || n.contains != absent || n.min_items || n.max_items != absent || n.unevaluated_items != absent || n.unique;
    return others || n.limits() || n.limits_strings() || objects || arrays;
  }
  bool suspect(const SchemaNode& n) const {
    const auto is = [&](uint32_t i) { return i != absent && nodes_[i].suspect; };
    const int numbers = n.least.has_value() + n.most.has_value() + n.above.has_value() + n.below.has_value() + n.multiple.has_value();
    const int strings = (n.min_length || n.max_length != absent) + (n.pattern != absent), lists = n.has_enum ? 1 : 0;
    if (n.all.size() + (n.says_more ? 1 : 0) > 1 && !n.all.empty()) return true;
    if ((n.names != absent || !n.patterns.empty()) && (n.min_properties || !n.required.empty())) return true;
    if (numbers + lists > 1 || strings + lists > 1) return true;
    if (n.contains != absent && (!n.prefix.empty() || n.items != absent)) return true;
    for (uint32_t i = 0; i < n.min_items && i <= n.prefix.size(); ++i)
      if (is(i < n.prefix.size() ? n.prefix[i] : n.items)) return true;
    return std::ranges::any_of(n.all, is) || std::ranges::any_of(n.any, is) || std::ranges::any_of(n.one, is) || std::ranges::any_of(n.required, [&](uint32_t name) { return is(n.child(name)); });
  }
  bool no_array(const SchemaNode& n) const {
    if (n.min_items > n.max_items) return true;
    const bool contains = n.contains != absent && n.min_contains > 0;
    if (contains && (never(n.contains) || n.min_contains > n.max_contains || n.min_contains > n.max_items)) return true;
    const uint32_t least = std::max(n.min_items, contains ? n.min_contains : 0);
    for (uint32_t i = 0; i < least && i < n.prefix.size(); ++i)
      if (never(n.prefix[i])) return true;
    return (least > n.prefix.size() && never(n.items)) || too_alike(n);
  }
  bool too_alike(const SchemaNode& n) const { return n.unique && n.items != absent && n.min_items > n.prefix.size() && values_[n.items] < n.min_items - n.prefix.size(); }
  // How many a node can hold at most, from nothing upwards as well.
  uint32_t values(uint32_t i) const {
    const SchemaNode& n = nodes_[i];
    const unsigned types = types_[i];
    const auto sum = [&](const SchemaNode::List<uint32_t>& list) {
      uint64_t all = 0;
      for (const uint32_t to : list) all += values_[to];
      return static_cast<uint32_t>(std::min<uint64_t>(all, absent));
    };
    uint32_t most = absent;
    if (n.has_enum) {
      most = (types & type_null ? n.literals & 1u : 0) + (types & type_boolean ? static_cast<unsigned>(std::popcount(n.literals & 6u)) : 0) + (types & type_string ? n.n_strings : 0);
      for (size_t k = 0; k < n.numbers.size() && types & (type_number | type_integer); ++k)
        most += std::none_of(&n.numbers[0], &n.numbers[k], [&](const Decimal& before) { return Decimal::compare(before, n.numbers[k]) == 0; });
      most += static_cast<uint32_t>(std::ranges::count_if(n.values, [&](uint32_t to) { return types_[to] & types; }));
    } else if (!(types & ~unsigned{type_null | type_boolean})) {
      most = (types & type_null ? 1 : 0) + (types & type_boolean ? 2 : 0);
    }
    for (const uint32_t to : n.all) most = std::min(most, values_[to]);
    if (!n.any.empty()) most = std::min(most, sum(n.any));
    return n.one.empty() ? most : std::min(most, sum(n.one));
  }
  bool no_object(const SchemaNode& n) const {
    if (n.min_properties > n.max_properties || n.required.size() > n.max_properties) return true;
    const bool closed = n.patterns.empty() && never(n.additional);
    for (const uint32_t name : n.required)
      if (const uint32_t child = n.child(name); child != absent ? never(child) : closed) return true;
    const auto possible = std::count_if(n.properties.begin(), n.properties.end(), [&](const auto& p) { return !never(p.second); });
    return closed && static_cast<size_t>(possible) < n.min_properties;
  }

  std::pmr::vector<SchemaNode>& nodes_;
  std::pmr::vector<uint8_t> types_;
  std::pmr::vector<uint32_t> values_;
};

}  // namespace

std::optional<Schema::Never> Schema::find_types(std::pmr::memory_resource* memory) {
  Finder finder(nodes, memory);
  std::optional<Never> never;
  if (!finder.find()) return never;
  for (size_t i = roots.size(); i-- > 0;)
    if (finder.never(roots[i].node)) {
      never = finder.why(roots[i].node);
      never->root = i;
    }
  finder.set();
  return never;
}

}  // namespace gptq::text::constraint
