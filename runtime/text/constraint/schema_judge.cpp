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
  bool alive = true;
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
  return alive;
}

SchemaMachine::Truth SchemaMachine::own(const SchemaNode& n, uint32_t position, const Plan& plan) const {
  if (n.never) return no;
  if (what_ == literal) {
    if (!(n.types & (literal_ == 1 ? type_null : type_boolean))) return no;
    return n.has_enum && !(n.literals & literal_) ? no : yes;
  }
  if (what_ == number) return own_number(n);
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

// Phases of a number: 0 -, 1 a first 0, 2 digits, 3 the point, 4 digits behind it, 5 e, 6 its sign, 7 its digits. + 16: a digit behind the
// point that is not 0; + 32: a negative exponent.
SchemaMachine::Truth SchemaMachine::own_number(const SchemaNode& n) const {
  if (!(n.types & (type_integer | type_number))) return no;
  if (n.has_enum && n.numbers.empty()) return no;
  const bool only_integers = !(n.types & type_number);
  if (!n.limits_numbers() || (phase_ & 64)) {
    if (!only_integers) return yes;
    return phase_ & 48 ? no : final_ ? yes : open;
  }
  if (!final_) return number_possible(n) ? open : no;
  return number_holds(n, Decimal::of(std::string_view(text_, text_size_))) ? yes : no;
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

// Whether an exponent of at most three digits that begins as the one in progress makes it good.
bool SchemaMachine::exponent_possible(const SchemaNode& n) const {
  const std::string_view text(text_, text_size_);
  const size_t e = text.find_first_of("eE");
  const Decimal mantissa = Decimal::of(text.substr(0, e));
  std::string_view typed = text.substr(e + 1);
  const bool sign_open = typed.empty();
  if (!typed.empty() && (typed[0] == '+' || typed[0] == '-')) typed.remove_prefix(1);
  if (typed.size() > 3) return false;
  int32_t begin = 0, width = 1;
  for (const char c : typed) begin = begin * 10 + (c - '0');
  for (size_t more = 0; more + typed.size() <= 3; ++more, begin *= 10, width *= 10)
    for (int32_t i = 0; i < width; ++i)
      for (const int sign : {1, -1}) {
        if (!sign_open && (sign < 0) != bool(phase_ & 32)) continue;
        Decimal d = mantissa;
        if (d.digits) d.exponent += sign * (begin + i);
        if (number_holds(n, d)) return true;
      }
  return false;
}

// Whether more digits can make it good.
bool SchemaMachine::number_possible(const SchemaNode& n) const {
  const uint32_t phase = phase_ & 15;
  if (phase >= 5) return exponent_possible(n);
  const bool only_integers = !(n.types & type_number);
  if (only_integers && (phase_ & 16)) return false;
  const bool negative = text_[0] == '-';
  std::string_view text(text_, text_size_);
  if (phase == 3) text.remove_suffix(1);
  const long double value = phase == 0 ? 0 : Decimal::of(negative ? text.substr(1) : text).value();
  long double step = 1;
  if (phase == 4)
    for (size_t i = text.find('.') + 1; i < text.size(); ++i) step /= 10;
  if (only_integers && phase >= 3) step = 0;
  // Of magnitudes, each closed: the number itself with what may follow, and with more digits before the point.
  const auto any = [&](auto&& meets) {
    if (phase == 0) return meets(0.0L, 1e4000L);
    if (meets(value, only_integers ? value : value + step)) return true;
    if (phase != 2) return false;
    long double scale = 10;
    for (unsigned k = 1; k <= 30; ++k, scale *= 10)
      if (meets(value * scale, (value + 1) * scale - (only_integers ? 1 : 0))) return true;
    return false;
  };
  const bool in_bounds = any([&](long double low, long double high) {
    if (negative) {
      low = -low, high = -high;
      std::swap(low, high);
    }
    if (n.least && high < n.least->value()) return false;
    if (n.above && high <= n.above->value() && (only_integers || phase >= 3 || high < n.above->value())) return false;
    if (n.most && low > n.most->value()) return false;
    if (n.below && low >= n.below->value()) return false;
    return true;
  });
  if (!in_bounds) return false;
  if (n.multiple && phase == 4 && (phase_ & 16)) {  // digits finer than its own never become one of it
    const Decimal d = Decimal::of(text);
    if (d.exponent < n.multiple->exponent) return false;
  }
  if (!n.has_enum) return true;
  return std::any_of(n.numbers.begin(), n.numbers.end(), [&](const Decimal& x) {
    const long double v = x.value();
    if (negative ? v > 0 : v < 0) return false;
    const long double m = v < 0 ? -v : v;
    return any([&](long double low, long double high) { return low <= m && m <= high; });
  });
}

// Whether it holds with any digits that may follow, and none that may follow is wanted: its text need not be kept.
bool SchemaMachine::number_certain(const SchemaNode& n) const {
  if (!n.limits_numbers()) return true;
  if (n.multiple || n.has_enum || n.most || n.below || text_[0] == '-') return false;
  const Decimal d = Decimal::of(std::string_view(text_, text_size_));
  return (!n.least || Decimal::compare(d, *n.least) >= 0) && (!n.above || Decimal::compare(d, *n.above) > 0);
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
  return final_ ? yes : open;
}

bool SchemaMachine::is_seen(uint32_t name, const Plan& plan) const {
  const View names = list(plan.names, plan.n_names);
  const auto at = static_cast<uint32_t>(std::lower_bound(names.begin(), names.end(), name) - names.begin());
  return f_[f_seen + at / 32] >> (at % 32) & 1;
}

SchemaMachine::Truth SchemaMachine::own_object(const SchemaNode& n, const Plan& plan) const {
  if (!(n.types & type_object)) return no;
  const uint32_t count = f_[f_count] >> 1;
  if (n.max_properties != none && count > n.max_properties) return no;
  bool missing = count < n.min_properties;
  for (const uint32_t name : n.required) missing |= !is_seen(name, plan);
  for (const auto& [name, other] : n.dependent_required) missing |= is_seen(name, plan) && !is_seen(other, plan);
  if (final_) return missing ? no : yes;
  const bool may_fail = missing || !n.properties.empty() || !n.patterns.empty() || n.additional != none || n.names != none || n.max_properties != none ||
                        !n.dependent_required.empty() || n.has_enum;
  return may_fail ? open : yes;
}

SchemaMachine::Truth SchemaMachine::own_array(const SchemaNode& n, uint32_t position, const Plan& plan) const {
  if (!(n.types & type_array)) return no;
  const uint32_t count = f_[f_count] >> 1;
  if (n.max_items != none && count > n.max_items) return no;
  bool missing = count < n.min_items;
  if (n.contains != none) {
    uint32_t at = f_seen + plan.seen_words() + plan.node_words();
    for (uint32_t i = 0; i < position; ++i) at += node(pool_[plan.nodes + i]).contains != none;
    if (n.max_contains != none && f_[at] > n.max_contains) return no;
    missing |= f_[at] < n.min_contains;
  }
  if (final_) return missing ? no : yes;
  const bool may_fail = missing || !n.prefix.empty() || n.items != none || n.max_items != none || n.max_contains != none || n.has_enum || n.unique;
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
    const Truth then = n.then == none ? yes : of(n.then), otherwise = n.otherwise == none ? yes : of(n.otherwise), condition = of(n.condition);
    const Truth both = then == otherwise ? then : open;
    truth = std::min(truth, condition == yes ? then : condition == no ? otherwise : both);
  }
  if (what_ == object)
    for (const auto& [name, to] : n.dependent_schemas)
      truth = std::min(truth, is_seen(name, plan) ? of(to) : final_ ? yes : std::max(of(to), open));
  return truth;
}

// Marks whose evaluations count for node i.
void SchemaMachine::contributing(uint32_t i, const Plan& plan) {
  Words& waiting = order_;
  waiting.assign(1, i);
  while (!waiting.empty()) {
    const uint32_t at = waiting.back();
    waiting.pop_back();
    const uint32_t p = position_[at];
    if (contributing_[p / 32] >> (p % 32) & 1) continue;
    contributing_[p / 32] |= 1u << (p % 32);
    const SchemaNode& n = node(at);
    const auto add = [&](uint32_t to) {
      if (to != none && status_[to] == yes && waiting.size() < waiting.capacity()) waiting.push_back(to);
    };
    for (const auto* list : {&n.all, &n.any, &n.one})
      for (const uint32_t to : *list) add(to);
    add(n.condition);
    if (n.condition != none) add(status_[n.condition] == yes ? n.then : n.otherwise);
    for (const auto& [name, to] : n.dependent_schemas)
      if (what_ == object && is_seen(name, plan)) add(to);
  }
}

bool SchemaMachine::leaves_unevaluated(uint32_t i, uint32_t position, const Plan& plan) {
  const uint32_t words = plan.node_words();
  contributing_.assign(words, 0);
  contributing(i, plan);
  for (size_t at = f_seen + plan.seen_words() + words + plan.n_contains; at < f_.size() - 2 * f_[f_hashes]; at += 2 * words) {
    bool evaluated = f_[at + words + position / 32] >> (position % 32) & 1;
    for (uint32_t w = 0; w < words; ++w) evaluated |= ((f_[at + w] | f_[at + words + w]) & contributing_[w]) != 0;
    if (!evaluated) return true;
  }
  return false;
}

}  // namespace gptq::text::constraint
