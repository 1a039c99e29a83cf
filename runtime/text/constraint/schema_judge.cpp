// SPDX-License-Identifier: Apache-2.0
// What nodes say of a value, or of as much of it as is there: it holds, it cannot hold any more, or that is open.
#include <algorithm>
#include <bit>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// Fills status_ of the plan's nodes. False where one that must hold cannot.
bool SchemaMachine::judge(uint32_t plan, What what, bool final) {
  what_ = what;
  final_ = final;
  const Plan& p = plans_[plan];
  const View nodes = list(p.nodes, p.n_nodes);
  if (p.unevaluated)
    for (uint32_t i = 0; i < p.n_nodes; ++i) position_[nodes[i]] = i;
  bool alive = what != number || final || (phase_ & 64) || ((p.bounds == none || number_possible(bounds_[p.bounds], list(p.numbers, p.n_numbers), !(p.types & type_number))) && number_new(p));
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(nodes[i]);
    Truth truth = with_others(n, own(n, i, p), p);
    if (truth != no && p.unevaluated && (what == object ? n.unevaluated_properties : what == array ? n.unevaluated_items : none) != none) {
      if (!final) truth = std::min(truth, open);
      else if (leaves_unevaluated(nodes[i], i, p)) truth = no;
    }
    status_[nodes[i]] = truth;
    alive &= truth != no || !pool_[p.must + i];
  }
  if (!alive || final) return alive;
  return what == object ? !p.counts_names || names_possible(p) : what != array || p.n_contains < 2 || items_possible(p);
}

SchemaMachine::Truth SchemaMachine::own(const SchemaNode& n, uint32_t position, const Plan& plan) const {
  if (n.never || (plan.impossible && pool_[plan.impossible + position])) return no;
  if (what_ == literal) {
    if (!(n.types & (literal_ == 1 ? type_null : type_boolean))) return no;
    return n.has_enum && !(n.literals & literal_) ? no : yes;
  }
  if (what_ == number) return own_number(pool_[plan.nodes + position], plan);
  if (what_ == string) return own_string(n, plan);
  const bool failed = f_[f_seen + plan.seen_words() + position / 32] >> (position % 32) & 1;
  if (failed) return no;
  if (n.has_enum) {
    if (n.values.empty()) return no;
    Truth any = no;
    for (const uint32_t value : n.values) any = std::max(any, static_cast<Truth>(status_[value]));
    if (any != yes) return any;
  }
  return what_ == object ? own_object(n, plan) : own_array(n, position, plan);
}

SchemaMachine::Truth SchemaMachine::own_string(const SchemaNode& n, const Plan& plan) const {
  if (!(n.types & type_string)) return no;
  if (!n.limits_strings()) return yes;
  if (n.has_enum && n.strings == none) return no;
  if (count_ > n.max_length && n.max_length != none) return no;
  if (final_ && count_ < n.min_length) return no;
  for (const uint32_t rule : {n.pattern, n.strings}) {
    if (rule == none) continue;
    const View rules = list(plan.rules, plan.n_rules);
    const uint32_t state = automata_[static_cast<size_t>(std::lower_bound(rules.begin(), rules.end(), rule) - rules.begin())];
    if (state == dead || (final_ && !const_cast<Grammar&>(patterns_).accepting(state))) return no;
  }
  if (!n.has_enum && n.pattern == none && n.max_length == none && count_ >= n.min_length) return yes;
  return final_ ? yes : open;
}

uint32_t SchemaMachine::place_of(uint32_t name, const Plan& plan) const {
  const View names = list(plan.names, plan.n_names);
  return static_cast<uint32_t>(std::lower_bound(names.begin(), names.end(), name) - names.begin());
}

bool SchemaMachine::is_seen(uint32_t name, const Plan& plan) const {
  const uint32_t at = place_of(name, plan);
  return f_[f_seen + at / 32] >> (at % 32) & 1;
}

// In compact JSON: the name's place is behind, whether it came or not.
bool SchemaMachine::is_passed(uint32_t place, const Plan& plan) const { return pool_[plan.ranks + place] + 1 < f_[f_place]; }

// Where only listed keys may come: whether there are too few that still can.
bool SchemaMachine::too_few_left(const SchemaNode& n, const Plan& plan) const {
  const bool own = n.additional != none && node(n.additional).never && n.patterns.empty();
  if (!own && !plan.names_listed && (plan.free_keys || plan.n_key_rules)) return false;
  uint32_t most = (f_[f_count] >> 1) + (coming_ != no_child);
  for (uint32_t i = 0; i < plan.n_names && most < n.min_properties; ++i) {
    if (is_passed(i, plan) || f_[f_seen + i / 32] >> (i % 32) & 1) continue;
    const uint32_t child = own ? n.child(pool_[plan.names + i]) : none;
    most += pool_[plan.viable + i] && (!own || (child != none && !node(child).never));
  }
  return most < n.min_properties;
}

SchemaMachine::Truth SchemaMachine::own_object(const SchemaNode& n, const Plan& plan) const {
  if (!(n.types & type_object)) return no;
  const uint32_t count = f_[f_count] >> 1;
  if (n.max_properties != none && count + (coming_ != no_child) > n.max_properties) return no;
  uint32_t missing_names = 0;
  for (const uint32_t name : n.required) {
    const uint32_t at = place_of(name, plan);
    if (f_[f_seen + at / 32] >> (at % 32) & 1) continue;
    if (is_passed(at, plan) || !pool_[plan.viable + at]) return no;
    ++missing_names;
  }
  if (n.max_properties != none && count + (coming_ == known_child) + missing_names > n.max_properties) return no;
  bool missing = count < n.min_properties || missing_names;
  if (n.min_properties && too_few_left(n, plan)) return no;
  for (const auto& [name, other] : n.dependent_required) {
    if (!is_seen(name, plan) || is_seen(other, plan)) continue;
    if (is_passed(place_of(other, plan), plan)) return no;
    missing = true;
  }
  if (final_) return missing ? no : yes;
  const bool undecided = std::any_of(n.properties.begin(), n.properties.end(), [&](const auto& property) {
    const uint32_t rank = pool_[plan.ranks + place_of(property.first, plan)];
    return rank + 1 >= f_[f_place] || (coming_ == known_child && rank + 2 == f_[f_place]);
  });
  const bool may_fail = missing || (!n.properties.empty() && undecided) || !n.patterns.empty() || n.additional != none || n.names != none ||
                        n.max_properties != none || !n.dependent_required.empty() || n.has_enum;
  return may_fail ? open : yes;
}

SchemaMachine::Truth SchemaMachine::own_array(const SchemaNode& n, uint32_t position, const Plan& plan) const {
  if (!(n.types & type_array)) return no;
  const uint32_t count = f_[f_count] >> 1;
  const bool must = pool_[plan.must + position];
  const uint32_t most = must ? plan.most_items : n.max_items;
  if (most != none && count + (coming_ != no_child) > most) return no;
  bool missing = count < n.min_items;
  const auto room = [&](uint8_t types, const uint32_t* fits, uint32_t wanted, uint32_t from) {
    return final_ ? wanted : room_for(types, fits, wanted, from, most, must ? nullptr : &n, plan);
  };
  if (missing && room(type_any, nullptr, n.min_items - count, count) < n.min_items - count) return no;
  if (n.contains != none) {
    uint32_t which = 0;
    for (uint32_t i = 0; i < position; ++i) which += node(pool_[plan.nodes + i]).contains != none;
    const uint32_t at = f_seen + plan.seen_words() + plan.node_words() + which;
    const uint32_t* fits = must && plan.n_slots ? &pool_[plan.slots + which * plan.n_slots] : nullptr;
    const uint32_t found = f_[at] & ~(is_none | is_one), open_from = count + (f_[at] != found);  // the first item of which it is not known
    if (n.max_contains != none && found > n.max_contains) return no;
    missing |= found < n.min_contains;
    const SchemaNode& one = node(n.contains);
    if (found < n.min_contains && room(one.types, fits, n.min_contains - found, open_from) < n.min_contains - found) return no;
    // Those that come for sure, and cannot be but one.
    const uint32_t sure = std::max(n.min_items, count + (coming_ != no_child));
    if (n.max_contains != none && one.types_alone && !final_ && sure > open_from) {
      const uint32_t others = room(static_cast<uint8_t>(~one.types & type_any), nullptr, sure - open_from, open_from);
      if (found + (sure - open_from) - others > n.max_contains) return no;
    }
  }
  if (final_) return missing ? no : yes;
  const bool may_fail =
      missing || !n.prefix.empty() || n.items != none || most != none || n.max_contains != none || n.has_enum || n.unique;
  return may_fail ? open : yes;
}

SchemaMachine::Truth SchemaMachine::with_others(const SchemaNode& n, Truth truth, const Plan& plan) const {
  if (truth == no) return no;
  const auto of = [&](uint32_t i) { return static_cast<Truth>(status_[i]); };
  for (const uint32_t to : n.all) truth = std::min(truth, of(to));
  if (!n.any.empty()) {
    Truth any = no;
    for (const uint32_t to : n.any) any = std::max(any, of(to));
    truth = std::min(truth, any);
  }
  if (!n.one.empty()) {
    uint32_t hold = 0, may = 0;
    for (const uint32_t to : n.one) hold += of(to) == yes, may += of(to) == open;
    truth = std::min(truth, hold > 1 || hold + may == 0 ? no : may ? open : yes);
  }
  if (n.refuse != none) truth = std::min(truth, static_cast<Truth>(yes - of(n.refuse)));
  if (n.condition != none) {
    const Truth then = n.then == none ? yes : of(n.then), otherwise = n.otherwise == none ? yes : of(n.otherwise),
                condition = of(n.condition);
    const Truth both = then == otherwise ? then : open;
    truth = std::min(truth, condition == yes ? then : condition == no ? otherwise : both);
  }
  if (what_ == object)
    for (const auto& [name, to] : n.dependent_schemas)
      truth = std::min(truth, is_seen(name, plan) ? of(to) : final_ ? yes : std::max(of(to), open));
  return truth;
}

}  // namespace gptq::text::constraint
