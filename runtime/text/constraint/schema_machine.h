// SPDX-License-Identifier: Apache-2.0
// A JSON Schema run on a text byte by byte: a validator that knows of every prefix whether the schema can still hold.
#pragma once
#include <array>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "text/constraint/grammar.h"
#include "text/constraint/machine.h"
#include "text/constraint/schema.h"
#include "text/constraint/string_reader.h"

namespace gptq::text::constraint {

class SchemaMachine final : public Machine {
 public:
  SchemaMachine(std::string_view source, bool compact, std::pmr::memory_resource* memory)
      : SchemaMachine(Schema::of(source, compact, memory), memory) {}
  SchemaMachine(Schema schema, std::pmr::memory_resource* memory);
  uint32_t start() override { return start_of(0); }
  static uint32_t states_for(const Schema& schema);
  // Before a value that this document allows.
  uint32_t start_of(uint32_t document);
  bool accepting(uint32_t state) override;
  uint32_t plain_run(uint32_t state) override;
  int likely(uint32_t state) override;
  void clear() override;
  // For a mask: one state that stands for many which differ in counts and hashes alone, as far as those do not matter, bytes_max bytes at
  // most; dead: there is none. Beyond that, and where doubt follows, they do: exactly() has what follows `state` by bytes, which led to
  // `loose`, and byte.
  static constexpr uint32_t doubt = 1;
  uint32_t loose(uint32_t state, uint32_t& bytes_max);
  uint32_t exactly(uint32_t state, uint32_t loose, std::string_view bytes, uint8_t byte);

 private:
  using Words = std::pmr::vector<uint32_t>;
  using View = std::span<const uint32_t>;
  static constexpr uint32_t none = ~0u, long_step = TokenTrie::kLongest + 1, number_bytes = Decimal::digits_max;  // of a number's text that is kept
  enum Truth : uint8_t { no = 0, open = 1, yes = 2 };
  enum What : uint8_t { literal, number, string, object, array };
  enum Coming : uint8_t { no_child, some_child, known_child };  // one that is begun or about to be, and whether its key is known
  // The first word of a state. value: [, frame, plan, 1: ] may come instead, 2: nothing else may]; string: [, frame, plan, escape, utf8,
  // count, hash, automata]; key: [, frame, escape, utf8, low, high, depth, count, hash, automata of names' patterns, automata of
  // propertyNames]; number: [, frame, plan, phase, its text]; literal: [, frame, plan, which, how far]; all others: [, frame]. A loose
  // string is as a string without hash; either the frame and the count are left out too, where so many texts are sure to be
  // left to end it: [, 0, plan, 0, utf8, the count at least, how many, in what steps, automata]; or none are wanted, as nothing must differ.
  enum Mode : uint32_t { at_value, in_string, in_number, in_literal, at_first_key, at_key, in_key, at_colon, after_value, at_end, loose_string, at_doubt };

  // Nodes that judge the same value, those they apply in place before them. All lists are in pool_.
  struct Plan {
    uint32_t nodes, n_nodes, must, names, n_names, viable, ranks, rules, n_rules, key_rules, n_key_rules;
    uint32_t names_plan;
    uint32_t bounds, numbers, n_numbers;  // what all numbers must keep, where several nodes say it, and these nodes
    uint32_t length_cap, count_cap, n_contains;
    uint32_t most_properties, most_items;  // of those that must hold
    uint32_t within;      // of each that must hold and leaves no key unevaluated, a mask of the nodes whose evaluations count
    uint32_t impossible;  // for each node whether it is never fulfilled; 0: there is no such list
    uint32_t slots, n_slots;  // for each that has `contains`, of so many items, the last for all behind, whether they can be one
    bool number_text, plain_strings, unevaluated, free_keys, unique;
    bool optional;       // some root need not hold: those around may fail by it
    bool caps;           // some node limits how many children there are
    bool closes;         // nodes that need not hold are failed by some keys
    bool counts_names;   // of those that must hold, some require names that others leave no place for, or that others require
    bool names_listed;   // no key is left but those of the list
    bool suspect;        // what must hold may be at odds
    uint8_t fulfillable; // 0: not known, 1: no, 2: yes, as far as that is looked for
    bool search_keys;    // whether any key is left takes a search
    bool orders;         // more than required names can fail a node by what came before
    bool narrow_numbers; // more than one node limits numbers
    bool narrow_strings; // whether any string is left takes a search
    bool plain_limits;   // strings must keep all limits, and that is all
    uint32_t min_length, max_length;  // then
    uint8_t types;       // that all which must hold allow
    uint32_t seen_words() const { return (n_names + 31) / 32; }
    uint32_t node_words() const { return (n_nodes + 31) / 32; }
  };
  // Of a container in progress, in words. f_place, of compact JSON, else 0: 2 + the last key's rank: names up to it cannot come any more.
  // f_count: twice the number of children, + 1 for an array; f_hash: of the children so far, f_key: of the last key, where hashes are
  // wanted: f_hashing is 1, or 2 where a mask leaves them out; f_hashes: how many there are behind all else, of the items.
  enum FrameAt : uint32_t { f_parent, f_plan, f_link, f_count, f_hashing, f_place, f_hash, f_key = f_hash + 2, f_hashes = f_key + 2, f_seen };
  enum Use : uint32_t { applies, contains, unevaluated };
  // Beside how many items `contains` has: what is known of the one in progress.
  static constexpr uint32_t is_none = 1u << 31, is_one = 1u << 30;

  uint32_t find(uint32_t state, uint8_t byte) override;
  Run alike(uint32_t state, uint8_t byte) const override;
  uint32_t make(std::initializer_list<uint32_t> head, View rest = {});
  const SchemaNode& node(uint32_t i) const { return schema_.nodes[i]; }
  View list(uint32_t at, uint32_t n) const { return {pool_.data() + at, n}; }

  // schema_plan.cpp
  uint32_t plan_of(Words& roots);
  bool build(uint32_t id);
  void rank_names(const Plan& plan, View roots);
  void walk(uint32_t root);
  uint32_t end_of(uint32_t rule, std::string_view text);
  bool names_allow(uint32_t plan, std::string_view name);
  bool refuses_keys(const SchemaNode& n) const;
  bool narrows_strings(Plan& p) const;
  template <class F>
  void each_in_place(const SchemaNode& n, F&& f) const;
  uint32_t link_of_key(uint32_t name, View automata);
  uint32_t link_of_item();
  int likely_in_key(View s) const;
  uint32_t finish_link();
  void apply(uint32_t node, bool must, uint32_t position, Use use);

  // schema_refine.cpp: what of a plan can be fulfilled at all
  bool refine(uint32_t id);
  bool children_agree();
  bool fulfillable(uint32_t plan);
  void roots_of_name(uint32_t name, const Plan& plan);
  void roots_of_item(uint32_t i, const Plan& plan);
  template <class F>
  auto apart(F&& f);

  // schema_judge.cpp: what the plan's nodes say of the value at hand
  bool judge(uint32_t plan, What what, bool final);
  Truth own(const SchemaNode& n, uint32_t position, const Plan& plan) const;
  Truth own_number(uint32_t at, const Plan& plan) const;
  bool number_new(const Plan& plan) const;
  Truth own_string(const SchemaNode& n, const Plan& plan) const;
  Truth own_object(const SchemaNode& n, const Plan& plan) const;
  Truth own_array(const SchemaNode& n, uint32_t position, const Plan& plan) const;
  Truth with_others(const SchemaNode& n, Truth own, const Plan& plan) const;
  bool leaves_unevaluated(uint32_t i, uint32_t position, const Plan& plan);
  void contributing(uint32_t i, const Plan& plan);
  uint32_t place_of(uint32_t name, const Plan& plan) const;
  bool is_seen(uint32_t name, const Plan& plan) const;
  bool is_passed(uint32_t place, const Plan& plan) const;
  bool too_few_left(const SchemaNode& n, const Plan& plan) const;
  bool names_possible(const Plan& plan);
  bool items_possible(const Plan& plan) const;
  uint32_t room_for(uint8_t types, const uint32_t* fits, uint32_t wanted, uint32_t from, uint32_t most, const SchemaNode* n, const Plan& plan) const;
  bool number_possible(const Bounds& bounds, View nodes, bool only_integers) const;
  template <class F>
  bool some_exponent(F&& good) const;
  bool exponent_possible(const SchemaNode& n) const;
  bool exponent_bearable(uint32_t frame, uint32_t plan);
  static bool number_holds(const SchemaNode& n, const Decimal& d);
  bool number_certain(const SchemaNode& n) const;
  bool bounded_away(uint32_t plan) const;

  uint32_t begin_value(uint32_t frame, uint32_t plan, uint8_t byte);
  uint32_t open_container(uint32_t frame, uint32_t plan, What what);
  uint32_t close_container(uint32_t frame);
  uint32_t finish_value(uint32_t frame, bool hash_known = true);
  uint32_t next_item(bool may_close);
  bool key_possible(uint32_t low, uint32_t high, View automata);
  // Whether the plan's node must hold and lets no key go unevaluated.
  bool leaves_none(const Plan& p, uint32_t i) const {
    const uint32_t rest = node(pool_[p.nodes + i]).unevaluated_properties;
    return pool_[p.must + i] && rest != none && node(rest).never;
  }
  bool close(Plan& plan);
  bool others_possible(const Plan& plan, View automata, bool whole = false);
  uint32_t rank_limit(const Plan& plan) const;
  // Whether more than its name decides if a key may come.
  bool keys_tried(const Plan& plan) const { return plan.closes || plan.caps || plan.counts_names || (f_[f_place] && plan.orders); }
  bool is_taken(uint64_t hash, View taken) const;
  bool startable(uint32_t plan);

  struct KeyPlace { uint32_t low, high, depth; };
  // schema_search.cpp: whether a string can still come to an end
  struct Ends {
    uint32_t length, cycle;  // a text of so many characters ends it, none: not found; and those longer by any number of cycles, 0: not found
  };
  enum Keys : uint32_t { any_key, longer_key, other_key };
  bool key_left(Keys which, uint32_t plan, const KeyPlace& place, uint32_t count, uint32_t utf8, View automata);
  Ends ends_of(uint32_t plan, View automata);
  Ends search_ends(const Plan& p, View automata);
  bool roomy(uint32_t plan, View automata, uint32_t low, uint32_t high, uint32_t wanted);
  uint32_t wanted(uint32_t frame) const { return static_cast<uint32_t>(taken_in(frame).size() / 2 + 1); }
  uint32_t loose_state(uint32_t plan, uint32_t utf8, uint32_t base, uint32_t wanted, uint32_t step, View automata);
  uint32_t on_loose(View s, uint8_t byte);
  bool stands_for_others(uint8_t byte) const;
  uint32_t string_state(std::initializer_list<uint32_t> head, View automata);
  bool string_possible(uint32_t frame, uint32_t plan, View automata, uint32_t count, uint64_t hash);
  bool string_holds(uint32_t frame, uint32_t plan, uint64_t hash);

  // schema_outlook.cpp: whether what is begun can still come to an end
  bool bearable(uint32_t frame, uint32_t plan);
  bool takes_child(uint32_t frame);
  bool unevaluated_fails(View link) const;
  bool key_holds(uint32_t name, View automata, bool whole);
  bool names_bearable(const Plan& plan);
  bool object_bearable(Coming coming);
  bool try_key(uint32_t name, View automata, bool whole);
  uint32_t if_any(uint32_t state, std::string_view bytes);

  uint32_t on_string(View s, uint8_t byte);
  uint32_t on_key(View s, uint8_t byte);
  uint32_t on_number(View s, uint8_t byte);
  uint32_t on_after(View s, uint8_t byte);
  void advance_key(KeyPlace& place, uint8_t byte, const Plan& plan) const;
  template <class Alive>
  bool escape_possible(const StringReader& reader, bool compact, View states, const KeyPlace* key, Alive&& alive);
  uint32_t begin_key(uint32_t frame);
  uint32_t end_key(View s);
  void load(uint32_t frame);
  // The first frames are around whole texts, one for each document.
  bool is_top(uint32_t frame) const { return frame < schema_.roots.size(); }
  bool within_unique(uint32_t frame) const { return !is_top(frame) && frames_.at(frame)[f_hashing]; }
  bool hashing(uint32_t frame) const { return !is_top(frame) && frames_.at(frame)[f_hashing] == 1; }
  uint32_t without_hashes(uint32_t frame);
  bool compact(uint32_t frame) const { return is_top(frame) ? schema_.roots[frame].compact : frames_.at(frame)[f_place] != 0; }
  bool takes_space(uint32_t frame) const { return !is_top(frame) && !compact(frame); }
  bool note_hash(const Plan& plan);
  uint32_t plan_of_value(uint32_t frame);
  View taken_in(uint32_t frame) const;
  static uint64_t hash_of(const Decimal& d);

  Schema schema_;
  bool has_patterns_;
  Grammar patterns_;
  Interner states_, frames_, plan_ids_, links_, finishable_, hopeless_, tried_strings_, tried_keys_, tried_characters_, ends_;
  std::pmr::vector<Plan> plans_;
  std::pmr::vector<Bounds> bounds_;
  std::pmr::vector<Ends> found_ends_;  // of ends_
  Words pool_;
  // Scratch of fixed capacity.
  Words f_, key_, roots_, pairs_, mask_, order_, contributing_, tried_, around_, above_, ways_, step_, keys_, key_states_, missing_, kept_, ended_, saved_;
  std::pmr::vector<uint8_t> status_, marked_;
  // What key_holds found in the frame held_in_, by name, last those of no list: 0 not known, 1 no, 2 yes.
  std::pmr::vector<uint8_t> held_;
  uint32_t loaded_ = none, held_in_ = none;
  Words position_;
  uint32_t trials_ = 0;   // how deep fulfillable is within itself
  uint32_t outlook_ = 0;  // how deep if_any is within itself
  // The value at hand, for judge.
  What what_ = literal;
  bool final_ = false;
  Coming coming_ = no_child;
  uint32_t literal_ = 0, count_ = 0, phase_ = 0;
  View automata_;
  std::array<uint16_t, 257> next_tried_;  // from a byte of a search on, which begins with a space, the first that stands for others
  View taken_;  // hashes of what a number cannot be, as its array wants unique items
  uint64_t hash_ = 0;  // where it is wanted
  char text_[number_bytes + 4];
  uint32_t text_size_ = 0;
};

}  // namespace gptq::text::constraint
