// SPDX-License-Identifier: Apache-2.0
// What nodes that must hold at once leave: of a plan what can be fulfilled at all, which is found when the plan is built and stays; of a
// container in progress whether there is place for what must still come; of a key in progress whether any is left.
#include <algorithm>
#include <utility>

#include "text/constraint/schema_machine.h"
#include "text/constraint/schema_nodes.h"

namespace gptq::text::constraint {

// Runs f and leaves all that is at hand as it was.
template <class F>
auto SchemaMachine::apart(F&& f) {
  Words* const words[] = {&f_, &mask_, &pairs_, &roots_, &key_states_};
  size_t sizes[std::size(words)], n = 0;
  const size_t before = saved_.size();
  for (size_t i = 0; i < std::size(words); ++i) n += sizes[i] = words[i]->size();
  if (n > saved_.capacity() - before) full_ = true;
  for (size_t i = 0; i < std::size(words) && !full_; ++i) saved_.insert(saved_.end(), words[i]->begin(), words[i]->end());
  const uint32_t outlook = std::exchange(outlook_, 0), loaded = loaded_;
  const Coming coming = std::exchange(coming_, no_child);
  const View taken = std::exchange(taken_, View());
  ++trials_;
  const auto result = f();
  --trials_;
  outlook_ = outlook, loaded_ = loaded, coming_ = coming, taken_ = taken, held_in_ = none;
  auto at = saved_.begin() + static_cast<ptrdiff_t>(before);
  for (size_t i = 0; i < std::size(words) && saved_.size() > before; at += static_cast<ptrdiff_t>(sizes[i++]))
    words[i]->assign(at, at + static_cast<ptrdiff_t>(sizes[i]));
  saved_.resize(before);
  return result;
}

// Whether a value may be begun that the plan's nodes allow.
bool SchemaMachine::fulfillable(uint32_t plan) {
  constexpr uint32_t deepest = 16;
  if (const uint8_t known = plans_[plan].fulfillable) return known == 2;
  if (trials_ == deepest || full_) return true;
  plans_[plan].fulfillable = 2;  // within itself
  const bool found = apart([&] {
    return std::ranges::any_of(value_begins, [&](char byte) { return begin_value(0, plan, static_cast<uint8_t>(byte)) != dead; });
  });
  if (!full_ && !found) plans_[plan].fulfillable = 1;
  return full_ || found;
}

// The nodes that a child must hold to.
void SchemaMachine::roots_of_name(uint32_t name, const Plan& p) {
  roots_.clear();
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    if (!pool_[p.must + i]) continue;
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const size_t before = roots_.size();
    const auto add = [&](uint32_t to) {
      if (to != none && roots_.size() < roots_.capacity()) roots_.push_back(to << 1 | 1);
    };
    add(n.child(name));
    for (const auto& [rule, to] : n.patterns)
      if (patterns_.accepting(end_of(rule, schema_.names[name]))) add(to);
    if (roots_.size() == before) add(n.additional);
  }
}

void SchemaMachine::roots_of_item(uint32_t at, const Plan& p) {
  roots_.clear();
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    if (!pool_[p.must + i]) continue;
    const SchemaNode& n = node(pool_[p.nodes + i]);
    const uint32_t to = at < n.prefix.size() ? n.prefix[at] : n.items;
    if (to != none && roots_.size() < roots_.capacity()) roots_.push_back(to << 1 | 1);
  }
}

// Whether some value holds to all of roots_.
bool SchemaMachine::children_agree() {
  const auto saying = [&](uint32_t root) { return node(root >> 1).says_more || !node(root >> 1).all.empty(); };
  uint8_t types = type_any;
  for (const uint32_t root : roots_) types &= node(root >> 1).never ? 0 : node(root >> 1).types;
  if (!types) return false;
  if (std::ranges::count_if(roots_, saying) < 2 && !std::ranges::any_of(roots_, [&](uint32_t root) { return node(root >> 1).suspect; })) return true;
  const uint32_t plan = plan_of(roots_);
  return full_ || (plans_[plan].types && fulfillable(plan));
}

bool SchemaMachine::refine(uint32_t id) {
  constexpr uint32_t slots_max = 64;
  if (plans_[id].search_keys) {
    const Plan& p = plans_[id];
    step_.clear();
    for (const uint32_t rule : list(p.key_rules, p.n_key_rules)) step_.push_back(patterns_.start_of(rule));
    if (p.names_plan != none)
      for (const uint32_t rule : list(plans_[p.names_plan].rules, plans_[p.names_plan].n_rules)) step_.push_back(patterns_.start_of(rule));
    if (!key_left(other_key, id, {0, p.n_names, 0}, 0, 0, step_)) plans_[id].names_listed = true;
  }
  uint32_t longest = 0, least = 0, values = none;
  bool unique = false;
  for (uint32_t i = 0; i < plans_[id].n_nodes; ++i)
    if (const SchemaNode& n = node(pool_[plans_[id].nodes + i]); pool_[plans_[id].must + i]) {
      longest = std::max(longest, static_cast<uint32_t>(n.prefix.size()));
      least = std::max(least, n.min_items);
      if (n.items != none) values = std::min(values, node(n.items).most_values);
      unique |= n.unique;
    }
  if (unique && values < none - longest) plans_[id].most_items = std::min(plans_[id].most_items, longest + values);
  if (plans_[id].n_contains && longest < slots_max) {
    plans_[id].n_slots = longest + 1;
    plans_[id].slots = static_cast<uint32_t>(pool_.size());
    if (pool_.size() + plans_[id].n_slots * plans_[id].n_contains > pool_.capacity()) return false;
    pool_.resize(pool_.size() + plans_[id].n_slots * plans_[id].n_contains, 1);
  }
  apart([&] {
    for (uint32_t i = 0; i < plans_[id].n_names && !full_; ++i) {
      roots_of_name(pool_[plans_[id].names + i], plans_[id]);
      if (pool_[plans_[id].viable + i] && !children_agree()) pool_[plans_[id].viable + i] = 0;
    }
    // Branches.
    for (uint32_t i = 0; i < plans_[id].n_nodes && !full_; ++i) {
      const uint32_t at = pool_[plans_[id].nodes + i], n_nodes = plans_[id].n_nodes;
      roots_.assign(1, at << 1 | 1);
      if (pool_[plans_[id].must + i] || !node(at).suspect || children_agree()) continue;
      if (!plans_[id].impossible) {
        plans_[id].impossible = static_cast<uint32_t>(pool_.size());
        if (pool_.size() + n_nodes > pool_.capacity()) full_ = true;
        else pool_.resize(pool_.size() + n_nodes, 0);
      }
      if (!full_) pool_[plans_[id].impossible + i] = 1;
    }
    for (uint32_t i = 0; i < slots_max && i <= longest && i < plans_[id].most_items && !full_; ++i) {
      roots_of_item(i, plans_[id]);
      if (!children_agree()) plans_[id].most_items = i;
    }
    if (plans_[id].most_items < least) plans_[id].types &= ~unsigned{type_array};
    uint32_t* slot = &pool_[0] + plans_[id].slots;
    for (uint32_t i = 0; i < plans_[id].n_nodes && plans_[id].n_slots; ++i)
      if (const SchemaNode& n = node(pool_[plans_[id].nodes + i]); n.contains != none)
        for (uint32_t k = 0; k < plans_[id].n_slots; ++k, ++slot) {
          roots_of_item(k, plans_[id]);
          roots_.push_back(n.contains << 1 | 1);
          if (pool_[plans_[id].must + i] && n.min_contains && !full_) *slot = children_agree();
        }
    return 0;
  });
  return !full_;
}

// Whether there is place for all names that must still come.
bool SchemaMachine::names_possible(const Plan& p) {
  missing_.assign(p.seen_words(), 0);
  uint32_t n = 0;
  bool possible = true, news = true;
  const auto want = [&](uint32_t name) {
    const uint32_t at = place_of(name, p), bit = 1u << (at % 32);
    if ((f_[f_seen + at / 32] | missing_[at / 32]) & bit) return;
    missing_[at / 32] |= bit;
    possible &= pool_[p.viable + at] && !is_passed(at, p);
    news = true;
    ++n;
  };
  const auto each = [&](auto&& use) {
    for (uint32_t i = 0; i < p.n_nodes; ++i)
      if (pool_[p.must + i]) use(node(pool_[p.nodes + i]));
  };
  each([&](const SchemaNode& one) { std::ranges::for_each(one.required, want); });
  while (std::exchange(news, false))
    each([&](const SchemaNode& one) {
      for (const auto& [name, other] : one.dependent_required)
        if (const uint32_t at = place_of(name, p); (f_[f_seen + at / 32] | missing_[at / 32]) >> (at % 32) & 1) want(other);
    });
  const uint32_t count = (f_[f_count] >> 1) + (coming_ == known_child);
  return possible && (p.most_properties == none || count + std::max<uint32_t>(n, coming_ == some_child) <= p.most_properties);
}

// How many of the items from one on can be of these types, as the node has them, or, without one, all that must hold. fits: of the plan's slots.
uint32_t SchemaMachine::room_for(uint8_t types, const uint32_t* fits, uint32_t wanted, uint32_t from, uint32_t most, const SchemaNode* n, const Plan& p) const {
  uint32_t found = 0;
  for (uint32_t i = from; i < most && found < wanted; ++i) {
    uint8_t here = type_any;
    bool alike = true;  // all behind are as this one
    const auto meet = [&](const SchemaNode& one) {
      alike &= i >= one.prefix.size();
      const uint32_t item = i < one.prefix.size() ? one.prefix[i] : one.items;
      if (item != none) here &= node(item).never ? 0 : node(item).types;
    };
    if (n) meet(*n);
    for (uint32_t k = 0; k < p.n_nodes && !n; ++k)
      if (pool_[p.must + k]) meet(node(pool_[p.nodes + k]));
    if (!here) break;
    const bool fit = (here & types) && (!fits || fits[std::min(i, p.n_slots - 1)]);
    if (alike) return fit ? std::min(wanted, found + (most - i)) : found;
    found += fit;
  }
  return found;
}

// Whether there is place for what several `contains` still want that no item can be at once.
bool SchemaMachine::items_possible(const Plan& p) const {
  uint32_t types = 0, wanted = 0, at = f_seen + p.seen_words() + p.node_words();
  bool decided = true, counted = false;  // what is known of the item in progress
  for (uint32_t i = 0; i < p.n_nodes; ++i) {
    const SchemaNode& n = node(pool_[p.nodes + i]);
    if (n.contains == none) continue;
    const uint32_t mark = f_[at] & (is_none | is_one), found = f_[at] ^ mark;
    ++at;
    if (!pool_[p.must + i] || found >= n.min_contains || (types & node(n.contains).types)) continue;
    types |= node(n.contains).types;
    wanted += n.min_contains - found;
    decided &= mark != 0, counted |= mark == is_one;
  }
  const uint32_t from = (f_[f_count] >> 1) + (types && (decided || counted));
  return room_for(static_cast<uint8_t>(types), nullptr, wanted, from, p.most_items, nullptr, p) >= wanted;
}

// Whether the key of the loaded frame's object can still become one that may come: of what follows as its list, the patterns of names and
// propertyNames have it, something ends. A search that takes too long says yes.
// other_key: of a new object, whether any may come that the list does not have.
bool SchemaMachine::key_left(Keys which, uint32_t plan, const KeyPlace& place, uint32_t count, uint32_t utf8, View automata) {
  const bool others = which == other_key;
  const Plan p = plans_[plan];
  if (!p.search_keys || full_ || (trials_ && !others)) return true;
  Words& ways = others ? ways_ : keys_;
  Interner& tried = others ? tried_strings_ : tried_keys_;
  enum : size_t { at_byte = 0, at_mark, at_frame, at_utf8, at_low, at_high, at_depth, at_count, head };  // an entry: the byte that is next, then what it is known by
  const uint32_t mark = none - (outlook_ != 0), frame = others ? none : loaded_, cap = p.names_plan == none ? 0 : plans_[p.names_plan].length_cap;
  const size_t width = head + automata.size();
  const auto known_by = [&](size_t entry) { return View(ways).subspan(entry + 1, width - 1); };
  const auto remember = [&](Interner& answers, View key) {
    if (answers.add(key) == none) answers.clear();
  };
  // The first is known as another where it may not end itself.
  ways.assign({0, mark - 2 * which, frame, utf8, place.low, place.high, place.depth, std::min(count, cap)});
  ways.insert(ways.end(), automata.begin(), automata.end());
  if (!others && finishable_.has(known_by(0))) return true;
  if (!others && hopeless_.has(known_by(0))) return false;
  tried.clear();
  tried.add(known_by(0));
  if (!others) kept_.assign(f_.begin(), f_.end());
  bool found = false, enough = false;
  while (!found && !ways.empty() && !patterns_.full() && !full_) {
    const size_t entry = ways.size() - width;
    const uint32_t byte = ways[entry]++;
    const KeyPlace at{ways[entry + at_low], ways[entry + at_high], ways[entry + at_depth]};
    const View states = View(ways).subspan(entry + head, automata.size());
    if (byte == 0 && !ways[entry + at_utf8] && others) {
      count_ = ways[entry + at_count];
      automata_ = states.subspan(p.n_key_rules);
      const bool listed = at.low < at.high && schema_.names[pool_[p.names + at.low]].size() == at.depth;
      found = !listed && others_possible(p, states, true) && (p.names_plan == none || judge(p.names_plan, string, true));
    } else if (byte == 0 && !ways[entry + at_utf8] && (entry || which == any_key)) {  // whether it may end here
      ended_.assign({in_key, frame, 0, 0, at.low, at.high, at.depth, ways[entry + at_count], 0, 0});
      ended_.insert(ended_.end(), states.begin(), states.end());
      found = end_key(ended_) != dead;
      f_.assign(kept_.begin(), kept_.end());
    }
    if (byte == 256) ways.resize(entry);
    if (found || byte == 256) continue;
    const uint8_t c = static_cast<uint8_t>(byte + ' ');  // letters first
    const bool listed = at.low < at.high;
    StringReader reader{};
    reader.utf8 = ways[entry + at_utf8];
    if ((!listed && !stands_for_others(c)) || ((c >= 0x80 || reader.utf8) && reader.take(c) == StringReader::wrong)) continue;
    enough = ways.size() + width > ways.capacity();
    if (enough) break;
    KeyPlace to = at;
    if (listed) advance_key(to, c, p);
    const uint32_t count_now = std::min(ways[entry + at_count] + ((c & 0xC0) != 0x80), cap);
    ways.insert(ways.end(), {0, mark, frame, reader.utf8, to.low, to.high, to.depth, count_now});
    for (size_t i = 0; i < automata.size(); ++i) ways.push_back(patterns_.next(ways[entry + head + i], c));
    const View next = View(ways).last(automata.size());
    bool alive = to.low < to.high || others_possible(p, next);
    if (alive && p.names_plan != none) {
      count_ = count_now;
      automata_ = next.subspan(p.n_key_rules);
      alive = judge(p.names_plan, string, false);
    }
    const uint32_t before = tried.size(), id = alive ? tried.add(known_by(entry + width)) : 0;
    enough = id == none;
    if (enough) break;
    if (!alive || id != before) ways.resize(entry + width);
  }
  if (patterns_.full()) full_ = true;
  if (full_) return false;
  found |= enough;
  if (others) return found;
  for (size_t entry = 0; found && entry < (enough ? width : ways.size()); entry += width) remember(finishable_, known_by(entry));
  for (uint32_t i = 0; !found && i < tried.size(); ++i) remember(hopeless_, tried.at(i));
  return found;
}

}  // namespace gptq::text::constraint
