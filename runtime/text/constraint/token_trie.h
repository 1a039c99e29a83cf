// SPDX-License-Identifier: Apache-2.0
// The vocabulary's bytes as a flat tree in depth-first order, built once a model: a mask walks it once. Tokens that are plain text, most of
// all, are also told apart: where any plain text may follow, a mask is theirs and a walk of the rest alone.
#pragma once
#include <array>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

namespace gptq::text::constraint {

class TokenTrie {
 public:
  static constexpr uint32_t kNone = ~0u;
  static constexpr size_t kLongest = 255;  // bytes of a token
  struct Node {
    uint32_t token;  // the first token that ends here, or kNone
    uint32_t after;  // the node after this one's subtree
    uint16_t depth;  // 1 below the root
    uint16_t below;  // classes of this byte and all in its subtree
    uint8_t byte;
    uint8_t deepest;  // depth of what is deepest in its subtree
    bool several;     // tokens of equal bytes end here
  };
  // Bytes that are mostly allowed together, by bits; the last are those of no class.
  static constexpr unsigned classes = 12;
  static constexpr uint16_t unclassed = 1u << classes;
  static constexpr uint16_t class_of(uint8_t byte) { return classes_of[byte]; }
  using Nodes = std::pmr::vector<Node>;
  // pieces[id]: the token's bytes; an empty piece is never allowed by a mask.
  TokenTrie(std::span<const std::string_view> pieces, std::pmr::memory_resource* memory);
  const Nodes& nodes() const { return nodes_; }
  uint32_t same(uint32_t token) const { return same_[token]; }  // the next token of equal bytes, or kNone
  size_t tokens() const { return same_.size(); }
  // Tokens that are no plain text: special ones, those without text, those longer than kLongest. Who makes the tree adds them.
  struct Other {
    uint32_t token;
    std::string_view bytes;
  };
  std::pmr::vector<Other> others;

  // Whole characters, none that JSON's strings want escaped.
  static bool is_plain(std::string_view piece, uint32_t& characters);
  // Those that are not plain.
  const Nodes& rest() const { return rest_; }
  // A mask of all that have bytes.
  std::span<const uint32_t> all() const { return all_; }
  // Sets the bits of plain tokens of at most so many characters.
  void add_plain(uint32_t characters, std::span<uint32_t> bits) const;

 private:
  static constexpr std::array<uint16_t, 256> classes_of = [] {
    std::array<uint16_t, 256> of{};
    of.fill(unclassed);
    const auto put = [&](unsigned char low, unsigned char high, unsigned bit) {
      for (int byte = low; byte <= high; ++byte) of[static_cast<size_t>(byte)] = static_cast<uint16_t>(1u << bit);
    };
    put('!', '~', 11);
    put('a', 'f', 0), put('g', 'z', 1), put('A', 'F', 2), put('G', 'Z', 3), put('0', '9', 4);
    put('_', '_', 5), put('-', '-', 6), put('.', '.', 7), put(' ', ' ', 8), put('/', '/', 9);
    put('"', '"', 10), put('\\', '\\', 10);
    return of;
  }();
  void build(Nodes& nodes, std::span<const std::string_view> pieces, std::span<const uint32_t> order);

  Nodes nodes_, rest_;
  std::pmr::vector<uint32_t> same_;
  std::pmr::vector<uint32_t> all_, plain_;    // masks
  std::pmr::vector<uint32_t> by_length_;      // plain tokens, the shortest first
  std::pmr::vector<uint32_t> length_begins_;  // [characters], in by_length_
};

}  // namespace gptq::text::constraint
