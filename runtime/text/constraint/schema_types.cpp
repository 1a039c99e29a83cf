// SPDX-License-Identifier: Apache-2.0
// Which types of values a node can hold at all; those that cannot be are taken from its own, and a node that is left with none never holds.
#include <algorithm>

#include "text/constraint/schema.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t absent = SchemaNode::none;

class Finder {
 public:
  explicit Finder(std::pmr::vector<SchemaNode>& nodes, std::pmr::memory_resource* memory)
      : nodes_(nodes), types_(nodes.size(), 0, memory) {}
  // From nothing upwards, so that what only holds with itself inside does not hold. Children mostly come after those that name them.
  bool find() {
    constexpr int passes_max = 200;
    bool news = true;
    for (int pass = 0; pass < passes_max && news; ++pass) {
      news = false;
      for (uint32_t i = static_cast<uint32_t>(nodes_.size()); i-- > 0;)
        if (const uint8_t found = of(nodes_[i]); found != types_[i]) types_[i] = found, news = true;
    }
    return !news;
  }
  void set() const {
    for (uint32_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i].types = types_[i];
      nodes_[i].never |= types_[i] == 0;
    }
  }

 private:
  uint8_t any(const SchemaNode::List<uint32_t>& list) const {
    uint8_t types = 0;
    for (const uint32_t i : list) types |= types_[i];
    return types;
  }
  bool never(uint32_t i) const { return i != absent && types_[i] == 0; }
  uint8_t of(const SchemaNode& n) const {
    if (n.never) return 0;
    unsigned types = n.types;
    for (const uint32_t i : n.all) types &= types_[i];
    if (!n.any.empty()) types &= any(n.any);
    if (!n.one.empty()) types &= any(n.one);
    if (n.condition != absent) types &= (n.then == absent ? 255u : types_[n.then]) | (n.otherwise == absent ? 255u : types_[n.otherwise]);
    if (n.has_enum) {
      unsigned listed = any(n.values);
      if (n.literals & 1) listed |= type_null;
      if (n.literals & 6) listed |= type_boolean;
      if (!n.numbers.empty()) listed |= type_integer;
      if (std::any_of(n.numbers.begin(), n.numbers.end(), [](const Decimal& d) { return !d.is_integer(); })) listed |= type_number;
      if (n.strings != absent) listed |= type_string;
      types &= listed;
    }
    if (no_number(n)) types &= ~unsigned{type_number | type_integer};
    if (n.min_length > n.max_length) types &= ~unsigned{type_string};
    if (no_array(n)) types &= ~unsigned{type_array};
    if (no_object(n)) types &= ~unsigned{type_object};
    return static_cast<uint8_t>(types & type_any);
  }
  static bool no_number(const SchemaNode& n) {
    for (const auto* low : {&n.least, &n.above})
      for (const auto* high : {&n.most, &n.below}) {
        if (!*low || !*high) continue;
        const int order = Decimal::compare(**low, **high);
        if (order > 0 || (order == 0 && (low == &n.above || high == &n.below))) return true;
      }
    return false;
  }
  bool no_array(const SchemaNode& n) const {
    if (n.min_items > n.max_items) return true;
    const bool contains = n.contains != absent && n.min_contains > 0;
    if (contains && (never(n.contains) || n.min_contains > n.max_contains || n.min_contains > n.max_items)) return true;
    const uint32_t least = std::max(n.min_items, contains ? n.min_contains : 0);
    for (uint32_t i = 0; i < least && i < n.prefix.size(); ++i)
      if (never(n.prefix[i])) return true;
    return least > n.prefix.size() && never(n.items);
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
};

}  // namespace

void Schema::find_types(std::pmr::memory_resource* memory) {
  Finder finder(nodes, memory);
  if (finder.find()) finder.set();
}

}  // namespace gptq::text::constraint
