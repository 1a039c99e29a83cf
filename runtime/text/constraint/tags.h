// SPDX-License-Identifier: Apache-2.0
// Free text with tags in it, as tool calls are written. A trigger ends the freedom: one of the begins that start with it must follow, then
// what the tag holds, then its end. The trigger found first counts, and the end that is found first where the tag's rules may end.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/constraint/grammar.h"
#include "text/constraint/machine.h"
#include "text/constraint/schema_machine.h"
#include "text/literal_tree.h"

namespace gptq::text::constraint {

// What a source says (gptq.h, GPTQ_CONSTRAINT_TAGS).
struct TagSet {
  TagSet(std::string_view source, std::pmr::memory_resource* memory);
  struct Tag {
    std::pmr::string end;    // empty: what it holds is the text's end
    bool is_schema = false;  // a document of schema, else a rule of nfa
    uint32_t root = 0;
  };
  std::pmr::vector<Tag> tags;
  LiteralTree begins;  // value: the tag; marked: a trigger ends here
  bool at_least_one = false, stop_after_first = false;
  std::optional<Schema> schema;
  std::optional<Nfa> nfa;
};

class TagMachine final : public Machine {
 public:
  TagMachine(std::string_view source, std::pmr::memory_resource* memory) : TagMachine(TagSet(source, memory), memory) {}
  TagMachine(TagSet set, std::pmr::memory_resource* memory);
  uint32_t start() override;
  bool accepting(uint32_t state) override;
  uint32_t plain_run(uint32_t state) override;
  int likely(uint32_t state) override;
  void clear() override;
  bool is_free(uint32_t state) const { return states_.at(state).size() && states_.at(state)[0] == free_text; }
  // Of the bytes that complete a trigger: what has none of them is free text where it begins in it.
  uint16_t completing_classes() const { return completing_; }
  // Whether a token that is no plain text may come, by its text: never as a part of what a tag holds.
  bool takes_whole(uint32_t state, std::string_view bytes);

 private:
  // The first word of a state. free_text, begun: [, node, 1: the text may end without another tag]; content: [, tag, state of its rules, how
  // far its end is come, as often as it is begun].
  enum Mode : uint32_t { free_text, begun, content, over };
  using View = std::span<const uint32_t>;
  uint32_t find(uint32_t state, uint8_t byte) override;
  uint32_t make(std::initializer_list<uint32_t> words);
  uint32_t reach(uint32_t node, uint32_t done);
  uint32_t on_content(View s, uint8_t byte);
  uint32_t without_rules(View s);
  uint32_t start_of(const TagSet::Tag& tag);
  Machine& rules(const TagSet::Tag& tag) { return tag.is_schema ? static_cast<Machine&>(*schema_) : *grammar_; }
  bool ends_here(View s);

  TagSet set_;
  std::optional<SchemaMachine> schema_;
  std::optional<Grammar> grammar_;
  Interner states_;
  std::pmr::vector<uint32_t> key_;
  uint16_t completing_ = 0;
};

}  // namespace gptq::text::constraint
