// SPDX-License-Identifier: Apache-2.0
// The vocabulary's bytes as a flat tree in depth-first order, built once a model: a mask walks it once.
#pragma once
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
    uint8_t byte;
  };
  // pieces[id]: the token's bytes; an empty piece is never allowed by a mask.
  TokenTrie(std::span<const std::string_view> pieces, std::pmr::memory_resource* memory);
  std::span<const Node> nodes() const { return nodes_; }
  uint32_t same(uint32_t token) const { return same_[token]; }  // the next token of equal bytes, or kNone
  size_t tokens() const { return same_.size(); }

 private:
  std::pmr::vector<Node> nodes_;
  std::pmr::vector<uint32_t> same_;
};

}  // namespace gptq::text::constraint
