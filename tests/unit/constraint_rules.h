// SPDX-License-Identifier: Apache-2.0
// A constraint over a small vocabulary: every byte alone, and some words.
#pragma once
#include <gtest/gtest.h>

#include <memory_resource>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/failure.h"
#include "text/constraint/constraint.h"

namespace gptq::test {

using text::constraint::Constraint;
using text::constraint::Kind;
using text::constraint::TokenTrie;

class Vocabulary {
 public:
  static constexpr int32_t end = 256;
  explicit Vocabulary(const std::vector<std::string>& words = {}) {
    for (int byte = 0; byte < 256; ++byte) pieces_.emplace_back(1, static_cast<char>(byte));
    pieces_.emplace_back();  // the end token
    pieces_.insert(pieces_.end(), words.begin(), words.end());
    const std::vector<std::string_view> views(pieces_.begin(), pieces_.end());
    trie_.emplace(views, std::pmr::new_delete_resource());
  }
  const std::vector<std::string>& pieces() const { return pieces_; }
  const TokenTrie& trie() const { return *trie_; }

 private:
  std::vector<std::string> pieces_;
  std::optional<TokenTrie> trie_;
};

struct Rules {
  Rules(Kind kind, std::string_view source, const Vocabulary& vocabulary, size_t cache_bytes = 1 << 16)
      : vocabulary(vocabulary),
        constraint(kind, source, vocabulary.trie(), ends, cache_bytes, std::pmr::new_delete_resource()),
        bits(constraint.mask_words()) {}
  Constraint::State after(std::string_view text) const { return constraint.step(constraint.start(), text); }
  bool accepts(std::string_view text) const { return constraint.accepts(after(text)); }
  // The mask of a state; where it was lost, of the state after this text.
  bool mask(Constraint::State& state, std::string_view text) {
    if (constraint.mask(state, false, bits)) return true;
    state = after(text);
    return constraint.mask(state, false, bits);
  }
  bool may(size_t token) const { return bits[token / 32] >> (token % 32) & 1; }

  const Vocabulary& vocabulary;
  const int32_t ends[1] = {Vocabulary::end};
  Constraint constraint;
  std::vector<uint32_t> bits;
};

inline const Vocabulary& bytes_alone() {
  static const Vocabulary vocabulary;
  return vocabulary;
}

inline bool accepts(Kind kind, std::string_view source, std::string_view text) { return Rules(kind, source, bytes_alone()).accepts(text); }

struct Refusal {
  uint64_t offset = 0;
  std::string message;  // empty: it was not refused
};
inline Refusal refusal(Kind kind, std::string_view source) {
  try {
    const Rules rules(kind, source, bytes_alone());
  } catch (const base::Failure& failure) {
    EXPECT_EQ(failure.detail.status, GPTQ_E_INVALID_ARGUMENT);
    return {failure.detail.offset, failure.detail.message};
  }
  return {};
}

}  // namespace gptq::test
