// SPDX-License-Identifier: Apache-2.0
// Which nodes judge a value together, and what a container's nodes apply to a child.
#include <algorithm>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// roots: node << 1 | whether it must hold. One that must hold makes the same one that need not needless.
uint32_t SchemaMachine::plan_of(Words& roots) {
  std::sort(roots.begin(), roots.end());
  roots.erase(std::unique(roots.begin(), roots.end()), roots.end());
  const uint32_t before = plan_ids_.size(), id = plan_ids_.add(roots);
  if (id == none || (id == before && !build(id))) {
    full_ = true;
    return none;
  }
  return id;
}

// Those applied in place first.
void SchemaMachine::walk(uint32_t root) {
  Words& open = key_;
  open.clear();
  open.push_back(root << 1);
  while (!open.empty()) {
    const uint32_t at = open.back() >> 1;
    const bool done = open.back() & 1;
    open.pop_back();
    if (done) {
      order_.push_back(at);
      continue;
    }
    if (marked_[at]) continue;
    marked_[at] = 1;
    open.push_back(at << 1 | 1);
    each_in_place(node(at), [&](uint32_t to) {
      if (!marked_[to]) open.push_back(to << 1);
    });
  }
}

bool SchemaMachine::refuses_keys(const SchemaNode& n) const {
  const auto never = [&](const std::pair<uint32_t, uint32_t>& one) { return node(one.second).never; };
  return (n.additional != none && node(n.additional).never) || std::any_of(n.properties.begin(), n.properties.end(), never) ||
         std::any_of(n.patterns.begin(), n.patterns.end(), never);
}

// Whether strings must keep several limits at once, or break one.
bool SchemaMachine::narrows_strings(Plan& p) const {
  uint32_t must = 0, others = 0;
  bool several = false, joins = false, breaks = false;
  p.max_length = none;
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const bool musts = pool_[p.must + i];
    const uint32_t limits = (n.min_length || n.max_length != none) + (n.pattern != none) + n.has_enum;
    (musts ? must : others) += limits;
    several |= limits > 1;
    joins |= !musts && !n.all.empty();
    breaks |= n.refuse != none || n.condition != none ||
              std::count_if(n.one.begin(), n.one.end(), [&](uint32_t to) { return (node(to).types & type_string) != 0; }) > 1;
    p.min_length = std::max(p.min_length, n.min_length);
    p.max_length = std::min(p.max_length, n.max_length);
  }
  p.plain_limits = !others && !breaks && !p.optional;
  return several || must > 1 || (must && others) || (others > 1 && joins) || (others && breaks);
}

bool SchemaMachine::build(uint32_t id) {
  if (plans_.size() == plans_.capacity()) return false;
  order_.clear();
  const View roots = plan_ids_.at(id);
  for (const uint32_t root : roots) walk(root >> 1);
  for (const uint32_t n : order_) marked_[n] = 0;
  Plan p{};
  p.n_nodes = static_cast<uint32_t>(order_.size());
  const auto room = [&](size_t n) { return pool_.size() + n <= pool_.capacity(); };
  if (!room(2 * order_.size())) return false;
  p.nodes = static_cast<uint32_t>(pool_.size());
  pool_.insert(pool_.end(), order_.begin(), order_.end());
  p.must = static_cast<uint32_t>(pool_.size());
  pool_.resize(pool_.size() + p.n_nodes, 0);
  for (uint32_t i = 0; i < p.n_nodes; ++i) position_[order_[i]] = i;
  for (const uint32_t root : roots) pool_[p.must + position_[root >> 1]] |= root & 1;
  for (uint32_t i = p.n_nodes; i-- > 0;)
    if (pool_[p.must + i])
      for (const uint32_t to : node(order_[i]).all) pool_[p.must + position_[to]] = 1;
  p.plain_strings = true;
  p.free_keys = true;
  p.most_properties = p.most_items = none;
  p.types = type_any;
  for (const uint32_t root : roots) p.optional |= !(root & 1);
  uint32_t limit_numbers = 0, least_properties = 0, least_items = 0;
  uint32_t n_saying = 0;
  bool requires_names = false;
  roots_.clear();
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(order_[i]);
    p.number_text |= n.limits_numbers();
    p.plain_strings &= !n.limits_strings();
    const bool must = pool_[p.must + i];
    limit_numbers += n.limits_numbers();
    p.orders |= n.min_properties || !n.dependent_required.empty() || !n.dependent_schemas.empty();
    if (must) {
      p.types &= n.never ? 0 : n.types;
      p.most_properties = std::min(p.most_properties, n.max_properties);
      p.most_items = std::min(p.most_items, n.max_items);
      least_properties = std::max(least_properties, n.min_properties);
      least_items = std::max(least_items, n.min_items);
      requires_names |= !n.required.empty();
      n_saying += n.says_more;
      p.suspect |= n.suspect;
      p.counts_names |= !n.dependent_required.empty();
      p.names_listed |= n.names_listed;
    } else p.closes |= refuses_keys(n) || !n.required.empty() || !n.dependent_required.empty();
    p.length_cap = std::max({p.length_cap, n.min_length, n.max_length == none ? 0 : n.max_length + 1});
    p.count_cap = std::max({p.count_cap, n.min_properties, n.max_properties == none ? 0 : n.max_properties + 1, n.min_items,
                            n.max_items == none ? 0 : n.max_items + 1, static_cast<uint32_t>(n.prefix.size())});
    p.n_contains += n.contains != none;
    p.unique |= n.unique;
    p.caps |= n.max_items != none || n.max_properties != none || n.max_contains != none;
    p.unevaluated |= n.unevaluated_properties != none || n.unevaluated_items != none;
    if (n.names != none) roots_.push_back(n.names << 1 | pool_[p.must + i]);
  }
  p.suspect |= n_saying > 1;
  p.counts_names |= requires_names && p.most_properties != none;
  if (least_properties > p.most_properties) p.types &= ~unsigned{type_object};
  if (least_items > p.most_items) p.types &= ~unsigned{type_array};
  p.narrow_strings = narrows_strings(p);
  p.narrow_numbers = limit_numbers > 1;
  p.bounds = none;
  if (p.narrow_numbers && bounds_.size() < bounds_.capacity()) {
    if (!room(p.n_nodes)) return false;
    Bounds all;
    p.numbers = static_cast<uint32_t>(pool_.size());
    for (uint32_t i = 0; i < p.n_nodes; ++i)
      if (pool_[p.must + i] && node(order_[i]).limits_numbers()) all.meet(node(order_[i])), pool_.push_back(order_[i]);
    if (all.at_odds()) p.types &= ~unsigned{type_integer | type_number};
    p.n_numbers = static_cast<uint32_t>(pool_.size()) - p.numbers;
    p.bounds = static_cast<uint32_t>(bounds_.size());
    bounds_.push_back(all);
  }
  // Rules that are followed along a string, and along a key: each once, in order.
  const auto keep = [&](uint32_t& first, uint32_t& n) {
    std::sort(key_.begin(), key_.end());
    key_.erase(std::unique(key_.begin(), key_.end()), key_.end());
    if (!room(key_.size())) return false;
    first = static_cast<uint32_t>(pool_.size());
    n = static_cast<uint32_t>(key_.size());
    pool_.insert(pool_.end(), key_.begin(), key_.end());
    return true;
  };
  key_.clear();
  for (const uint32_t at : order_)
    for (const uint32_t rule : {node(at).pattern, node(at).strings})
      if (rule != none && key_.size() < key_.capacity()) key_.push_back(rule);
  if (!keep(p.rules, p.n_rules)) return false;
  key_.clear();
  for (const uint32_t at : order_)
    for (const auto& [rule, child] : node(at).patterns)
      if (key_.size() < key_.capacity()) key_.push_back(rule);
  if (!keep(p.key_rules, p.n_key_rules)) return false;
  // Names that count, and whether one may be a key at all.
  key_.clear();
  for (const uint32_t at : order_) {
    const SchemaNode& n = node(at);
    if (key_.size() + n.named.size() > key_.capacity()) return false;
    key_.insert(key_.end(), n.named.begin(), n.named.end());
  }
  std::sort(key_.begin(), key_.end());
  key_.erase(std::unique(key_.begin(), key_.end()), key_.end());
  p.n_names = static_cast<uint32_t>(key_.size());
  if (!room(3 * key_.size())) return false;
  p.names = static_cast<uint32_t>(pool_.size());
  pool_.insert(pool_.end(), key_.begin(), key_.end());
  p.viable = static_cast<uint32_t>(pool_.size());
  p.ranks = p.viable + p.n_names;
  for (const uint32_t name : key_) {
    uint8_t types = type_any;
    for (uint32_t i = 0; i < p.n_nodes; ++i) {
      if (!pool_[p.must + i]) continue;
      const SchemaNode& n = node(order_[i]);
      const uint32_t child = n.child(name);
      bool matched = false;
      const auto meet = [&](uint32_t to) {
        if (to != none) types &= node(to).never ? 0 : node(to).types, matched = true;
      };
      meet(child);
      for (const auto& [rule, to] : n.patterns)
        if (patterns_.accepting(end_of(rule, schema_.names[name]))) meet(to);
      if (!matched) meet(n.additional);
    }
    pool_.push_back(types != 0);
  }
  rank_names(p, roots);
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(order_[i]);
    if (!pool_[p.must + i]) continue;
    if (n.additional != none && node(n.additional).never) p.free_keys = false;
  }
  if (!close(p)) return false;
  p.names_plan = none;
  p.search_keys = !p.names_listed && (!roots_.empty() || (p.n_key_rules && (!p.free_keys || p.closes)));
  plans_.push_back(p);
  if (!roots_.empty()) {
    const uint32_t names_plan = plan_of(roots_);
    if (names_plan == none) return false;
    plans_[id].names_plan = names_plan;
    for (uint32_t i = 0; i < p.n_names; ++i) pool_[p.viable + i] &= names_allow(names_plan, schema_.names[pool_[p.names + i]]);
  }
  return !patterns_.full() && refine(id);
}

// What unevaluatedProperties of nodes that must hold leave: only what they themselves, and what they apply in place, evaluate.
bool SchemaMachine::close(Plan& p) {
  p.within = static_cast<uint32_t>(pool_.size());
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    if (!leaves_none(p, i)) continue;
    const size_t row = pool_.size();
    if (row + p.node_words() > pool_.capacity()) return false;
    pool_.resize(row + p.node_words(), 0);
    const auto add = [&](uint32_t to) { pool_[row + position_[to] / 32] |= 1u << (position_[to] % 32); };
    const auto has = [&](uint32_t k) { return pool_[row + k / 32] >> (k % 32) & 1; };
    bool others = false;
    add(order_[i]);
    for (uint32_t k = i + 1; k-- > 0;) {  // what is applied in place comes before
      const SchemaNode& n = node(order_[k]);
      if (!has(k)) continue;
      each_in_place(n, add);
      for (const uint32_t to : {n.additional, n.unevaluated_properties}) others |= to != none && !node(to).never;
    }
    p.free_keys &= others;
    for (uint32_t name = 0; name < p.n_names && !others; ++name) {
      const uint32_t listed = pool_[p.names + name];
      const auto matches = [&](const auto& pattern) { return patterns_.accepting(end_of(pattern.first, schema_.names[listed])); };
      bool evaluated = false;
      for (uint32_t k = 0; k <= i && !evaluated; ++k) evaluated = has(k) && (node(order_[k]).child(listed) != none || std::ranges::any_of(node(order_[k]).patterns, matches));
      pool_[p.viable + name] &= evaluated;
    }
  }
  return true;
}

// Where a rule's automaton is behind a text.
uint32_t SchemaMachine::end_of(uint32_t rule, std::string_view text) {
  uint32_t state = patterns_.start_of(rule);
  for (const char c : text) state = patterns_.next(state, static_cast<uint8_t>(c));
  return state;
}

// Whether propertyNames that must hold do.
bool SchemaMachine::names_allow(uint32_t plan, std::string_view name) {
  step_.clear();
  for (const uint32_t rule : list(plans_[plan].rules, plans_[plan].n_rules)) step_.push_back(end_of(rule, name));
  count_ = static_cast<uint32_t>(std::ranges::count_if(name, [](char c) { return (c & 0xC0) != 0x80; }));
  automata_ = step_;
  return judge(plan, string, true);
}

// Appends the place of every name in the order in which the schema has them.
void SchemaMachine::rank_names(const Plan& p, View roots) {
  pool_.resize(p.ranks + p.n_names, none);
  uint32_t rank = 0;
  const auto take = [&](const SchemaNode& n) {
    for (const uint32_t name : n.named)
      if (uint32_t& place = pool_[p.ranks + place_of(name, p)]; place == none) place = rank++;
  };
  Words& open = step_;
  open.clear();
  for (size_t i = roots.size(); i-- > 0;) open.push_back(roots[i] & ~1u);
  while (!open.empty() && rank < p.n_names) {
    const uint32_t at = open.back() >> 1;
    const bool done = open.back() & 1;
    open.pop_back();
    if (!done && marked_[at]) continue;
    marked_[at] = 1;
    const SchemaNode& n = node(at);
    if (done || !n.named_last) take(n);
    if (done) continue;
    if (n.named_last) open.push_back(at << 1 | 1);
    const auto first = static_cast<ptrdiff_t>(open.size());
    each_in_place(n, [&](uint32_t to) { open.push_back(to << 1); });
    std::reverse(open.begin() + first, open.end());
  }
  for (uint32_t i = 0; i < p.n_nodes; ++i) marked_[pool_[p.nodes + i]] = 0;
}

void SchemaMachine::apply(uint32_t node, bool must, uint32_t position, Use use) {
  if (pairs_.size() + 2 > pairs_.capacity() || roots_.size() == roots_.capacity()) {
    full_ = true;
    return;
  }
  roots_.push_back(node << 1 | (must && use == applies));
  pairs_.push_back(position << 2 | use);
  pairs_.push_back(roots_.back());
  if (use == applies) mask_[position / 32] |= 1u << (position % 32);
}

// A link: the child's plan, how many applications, each (position and use, root), and a mask of who evaluates the child.
uint32_t SchemaMachine::finish_link() {
  const uint32_t plan = plan_of(roots_);
  if (plan == none || full_) return none;
  key_.clear();
  if (key_.capacity() < pairs_.size() + mask_.size() + 2) return full_ = true, none;
  key_.push_back(plan);
  key_.push_back(static_cast<uint32_t>(pairs_.size() / 2));
  key_.insert(key_.end(), pairs_.begin(), pairs_.end());
  key_.insert(key_.end(), mask_.begin(), mask_.end());
  const uint32_t link = links_.add(key_);
  full_ |= link == none;
  return link;
}

uint32_t SchemaMachine::link_of_key(uint32_t name, View automata) {
  const Plan p = plans_[f_[f_plan]];
  roots_.clear();
  pairs_.clear();
  mask_.assign(p.node_words(), 0);
  for (uint32_t i = 0; i < p.n_nodes && !full_; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const bool must = pool_[p.must + i];
    bool matched = false;
    if (name != none)
      if (const uint32_t child = n.child(name); child != none) {
        apply(child, must, i, applies);
        matched = true;
      }
    for (const auto& [rule, child] : n.patterns) {
      const View rules = list(p.key_rules, p.n_key_rules);
      const auto at = static_cast<size_t>(std::lower_bound(rules.begin(), rules.end(), rule) - rules.begin());
      if (!patterns_.accepting(automata[at])) continue;
      apply(child, must, i, applies);
      matched = true;
    }
    if (!matched && n.additional != none) apply(n.additional, must, i, applies);
    if (n.unevaluated_properties != none) apply(n.unevaluated_properties, false, i, unevaluated);
  }
  return full_ ? none : finish_link();
}

uint32_t SchemaMachine::link_of_item() {
  const Plan p = plans_[f_[f_plan]];
  const uint32_t index = f_[f_count] >> 1;
  roots_.clear();
  pairs_.clear();
  mask_.assign(p.node_words(), 0);
  for (uint32_t i = 0; i < p.n_nodes && !full_; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const bool must = pool_[p.must + i];
    if (index < n.prefix.size()) apply(n.prefix[index], must, i, applies);
    else if (n.items != none) apply(n.items, must, i, applies);
    if (n.contains != none) apply(n.contains, false, i, contains);
    if (n.unevaluated_items != none) apply(n.unevaluated_items, false, i, unevaluated);
  }
  return full_ ? none : finish_link();
}

}  // namespace gptq::text::constraint
