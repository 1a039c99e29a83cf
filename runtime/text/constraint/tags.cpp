// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/tags.h"

#include "base/failure.h"

namespace gptq::text::constraint {
namespace {

constexpr uint32_t end_max = 256;

}  // namespace

TagMachine::TagMachine(TagSet set, std::pmr::memory_resource* memory)
    : Machine(set.schema ? SchemaMachine::states_for(*set.schema) : GrammarSize{}.states, memory),
      set_(std::move(set)),
      states_(states_max(), 6 * states_max(), memory),
      key_(memory) {
  if (set_.schema) schema_.emplace(std::move(*set_.schema), memory);
  if (set_.nfa) grammar_.emplace(std::move(*set_.nfa), GrammarSize{}, memory);
  key_.reserve(3 + end_max);
  for (const LiteralTree::Node& node : set_.begins.nodes)
    if (node.marked) completing_ |= TokenTrie::class_of(node.byte);
  clear();
  for (uint32_t i = 0; i < set_.tags.size(); ++i)
    if (start_of(set_.tags[i]) == dead && !full_) base::fail(GPTQ_E_INVALID_ARGUMENT, "tags: /tags/", i, ": no text is allowed in it");
}

void TagMachine::clear() {
  Machine::clear();
  if (schema_) schema_->clear();
  if (grammar_) grammar_->clear();
  states_.clear();
  with_row(states_.add({}));
}

uint32_t TagMachine::make(std::initializer_list<uint32_t> words) {
  key_.assign(words);
  return full_ ? dead : with_row(states_.add(key_));
}

uint32_t TagMachine::start() { return make({free_text, 0, !set_.at_least_one}); }

uint32_t TagMachine::start_of(const TagSet::Tag& tag) {
  const uint32_t state = tag.is_schema ? schema_->start_of(tag.root) : grammar_->start_of(tag.root);
  full_ |= rules(tag).full();
  return state;
}

// Of what is held.
bool TagMachine::ends_here(View s) { return s[2] != dead && rules(set_.tags[s[1]]).accepting(s[2]); }

bool TagMachine::accepting(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty() || s[0] == begun) return false;
  if (s[0] == content) return set_.tags[s[1]].end.empty() && ends_here(s);
  return s[0] == over || s[2];
}

// A trigger among the characters ends the freedom, an end the rules: then it is not known.
uint32_t TagMachine::plain_run(uint32_t state) {
  const View s = states_.at(state);
  if (s.size() != 3 || s[0] != content || s[2] == dead) return 0;
  const TagSet::Tag& tag = set_.tags[s[1]];
  if (!tag.end.empty() && (!tag.is_schema || ends_here(s))) return 0;
  const uint32_t run = rules(tag).plain_run(s[2]);
  full_ |= rules(tag).full();
  return run;
}

int TagMachine::likely(uint32_t state) {
  const View s = states_.at(state);
  if (s.empty() || s[0] == free_text) return not_known;
  if (s[0] == over) return nothing;
  if (s[0] == begun) {
    const LiteralTree::Node& next = set_.begins.nodes[set_.begins.nodes[s[1]].child];
    return next.sibling == LiteralTree::none ? next.byte : not_known;
  }
  const TagSet::Tag& tag = set_.tags[s[1]];
  if (s[2] == dead) return s.size() == 4 ? static_cast<uint8_t>(tag.end[s[3]]) : not_known;
  if (s.size() > 3) return not_known;
  const int inner = rules(tag).likely(s[2]);
  full_ |= rules(tag).full();
  return inner == nothing && !tag.end.empty() ? static_cast<uint8_t>(tag.end[0]) : inner;
}

// A node of the begins.
uint32_t TagMachine::reach(uint32_t node, uint32_t done) {
  if (node == LiteralTree::none) return dead;
  const uint32_t tag = set_.begins.nodes[node].value;
  if (tag == LiteralTree::none) return make({begun, node, done});
  const uint32_t inner = start_of(set_.tags[tag]);
  return inner == dead ? dead : make({content, tag, inner});
}

uint32_t TagMachine::on_content(View s, uint8_t byte) {
  const TagSet::Tag& tag = set_.tags[s[1]];
  const uint32_t inner = s[2] == dead ? dead : rules(tag).next(s[2], byte);
  if (rules(tag).full()) return full_ = true, dead;
  key_.assign({content, s[1], inner});
  bool closed = false;
  const auto go_on = [&](uint32_t at) {
    if (at >= tag.end.size() || static_cast<uint8_t>(tag.end[at]) != byte) return;
    key_.push_back(at + 1);
    closed |= at + 1 == tag.end.size();
  };
  for (size_t i = 3; i < s.size(); ++i) go_on(s[i]);
  if (ends_here(s)) go_on(0);
  if (closed) return set_.stop_after_first ? make({over}) : make({free_text, 0, 1});
  return inner == dead && key_.size() == 3 ? dead : with_row(states_.add(key_));
}

uint32_t TagMachine::find(uint32_t state, uint8_t byte) {
  const View s = states_.at(state);
  if (s[0] == over) return dead;
  if (s[0] == content) return on_content(s, byte);
  if (s[0] == begun) return reach(set_.begins.child_of(s[1], byte), s[2]);
  const uint32_t to = set_.begins.next(s[1], byte);
  return set_.begins.nodes[to].marked ? reach(to, s[2]) : make({free_text, to, s[2]});
}

// Where only the end may go on.
uint32_t TagMachine::without_rules(View s) {
  key_.assign({content, s[1], dead});
  key_.insert(key_.end(), s.begin() + 3, s.end());
  if (ends_here(s)) key_.push_back(0);
  return key_.size() == 3 ? dead : with_row(states_.add(key_));
}

bool TagMachine::takes_whole(uint32_t state, std::string_view bytes) {
  if (bytes.empty()) return states_.at(state)[0] == free_text;
  for (const char byte : bytes) {
    if (const View s = states_.at(state); s[0] == content) state = without_rules(s);
    if (state != dead) state = next(state, static_cast<uint8_t>(byte));
    if (state == dead) return false;
  }
  return true;
}

}  // namespace gptq::text::constraint
