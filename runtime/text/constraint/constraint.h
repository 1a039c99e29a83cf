// SPDX-License-Identifier: Apache-2.0
// What a generated text must be, and which tokens may come next in each of its states.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "text/constraint/grammar.h"
#include "text/constraint/schema_machine.h"
#include "text/constraint/tags.h"
#include "text/constraint/token_trie.h"
#include "text/tokenizer.h"

namespace gptq::text::constraint {

enum class Kind : int32_t { choice = 1, regex = 2, json_schema = 3, grammar = 4, tags = 5, json_compact = 7 };

// The tree of all tokens that are text: no special ones, none of ends. The others beside it; their bytes stay the tokenizer's.
TokenTrie trie_of(const Tokenizer& tokenizer, uint32_t n_vocab, std::span<const int32_t> ends, std::pmr::memory_resource* memory);

// Any number of threads may use it. After construction nothing here allocates: states are found as they are reached, and when there is no
// place for another all are forgotten; who held one leads the constraint over the text again.
class Constraint {
 public:
  using State = uint64_t;  // what was found when, and its number
  static constexpr State dead = 0, lost = ~State{0};

  // trie must outlive it. The masks it keeps take cache_bytes at most.
  Constraint(Kind kind, std::string_view source, const TokenTrie& trie, std::span<const int32_t> ends, size_t cache_bytes,
             std::pmr::memory_resource* memory);

  State start() const;
  // The state after these bytes; dead: they leave the constraint; lost: states were forgotten, begin again.
  State step(State state, std::string_view bytes) const;
  bool accepts(State state) const;
  // Nothing but the end can follow.
  bool complete(State state) const;

  // White space as a text has it: what came behind each of these the last time.
  struct Spaces {
    static constexpr std::string_view behind = ":,{[";
    std::string_view runs[4] = {" ", " ", "", ""};
    // Of a text; as they are where it does not say.
    void learn(std::string_view text);
  };
  // What most likely follows a text that ends with `last`, as far as little else can: returns how many bytes of out. A guess, and no promise
  // that these alone may come.
  size_t foresee(State state, char last, const Spaces& spaces, std::span<char> out) const;

  size_t mask_words() const { return (trie_.tokens() + 31) / 32; }
  // Sets bit id of bits (mask_words()) where token id may come next; of end tokens where the text may end. False: the state is lost.
  // skips_space: the text loses a space it begins with; only at the start.
  bool mask(State state, bool skips_space, std::span<uint32_t> bits) const;

 private:
  State named(uint32_t state) const { return state == Machine::dead ? dead : State{epoch_} << 32 | state; }
  bool knows(State state) const { return state >> 32 == epoch_; }
  bool settle() const;
  void fill(uint32_t state, bool skips_space, std::span<uint32_t> bits) const;
  void fill_text(uint32_t state, bool skips_space, std::span<uint32_t> bits) const;
  void fill_free_text(uint32_t state, std::span<uint32_t> bits) const;

  const TokenTrie& trie_;
  const std::pmr::vector<int32_t> ends_;
  mutable std::mutex guard_;
  mutable std::optional<Grammar> grammar_;
  mutable std::optional<SchemaMachine> schema_;
  mutable std::optional<TagMachine> tags_;
  Machine* machine_ = nullptr;
  mutable uint32_t epoch_ = 1;
  // Masks by state, the oldest making place.
  const uint32_t n_slots_;
  mutable std::pmr::vector<uint32_t> masks_;     // [n_slots_][mask_words()]
  mutable std::pmr::vector<uint32_t> owners_;    // of slots: a state, 0: none
  mutable std::pmr::vector<uint16_t> slot_of_;   // of states, from 1; 0: its mask is not kept
  mutable std::pmr::vector<uint8_t> complete_;   // of states: 1 no, 2 yes, 0 not known
  mutable uint32_t next_slot_ = 0;
};

}  // namespace gptq::text::constraint
