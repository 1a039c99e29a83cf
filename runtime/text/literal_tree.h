// SPDX-License-Identifier: Apache-2.0
// Texts as one tree of bytes, in which all of them are looked for at once (Aho and Corasick 1975).
#pragma once
#include <cstdint>
#include <memory_resource>
#include <string_view>
#include <vector>

namespace gptq::text {

class LiteralTree {
 public:
  static constexpr uint32_t none = ~0u;
  struct Node {
    uint32_t child = none, sibling = none;
    uint32_t back = 0;      // the longest end of its text that a text begins with, but itself
    uint32_t value = none;  // whose text ends here
    uint16_t depth = 0;     // bytes
    uint8_t byte = 0;
    bool marked = false;
  };
  explicit LiteralTree(std::pmr::memory_resource* memory) : nodes(1, memory) {}

  // The node where the text ends.
  uint32_t add(std::string_view text) {
    uint32_t at = 0;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      uint32_t to = child_of(at, byte);
      if (to == none) {
        to = static_cast<uint32_t>(nodes.size());
        nodes.push_back({.child = none,
                         .sibling = nodes[at].child,
                         .back = 0,
                         .value = none,
                         .depth = static_cast<uint16_t>(nodes[at].depth + 1),
                         .byte = byte,
                         .marked = false});
        nodes[at].child = to;
      }
      at = to;
    }
    return at;
  }
  uint32_t child_of(uint32_t node, uint8_t byte) const {
    uint32_t at = nodes[node].child;
    while (at != none && nodes[at].byte != byte) at = nodes[at].sibling;
    return at;
  }
  // After the last text; visit(node) of all, each after its back.
  template <class Visit>
  void find_backs(Visit&& visit) {
    std::pmr::vector<uint32_t> open(1, 0, nodes.get_allocator());
    for (size_t i = 0; i < open.size(); ++i)
      for (uint32_t at = nodes[open[i]].child; at != none; at = nodes[at].sibling) {
        nodes[at].back = open[i] ? next(nodes[open[i]].back, nodes[at].byte) : 0;
        open.push_back(at);
        visit(nodes[at]);
      }
  }
  // The longest end of what was read that a text begins with.
  uint32_t next(uint32_t node, uint8_t byte) const {
    for (;; node = nodes[node].back) {
      if (const uint32_t to = child_of(node, byte); to != none) return to;
      if (node == 0) return 0;
    }
  }
  std::pmr::vector<Node> nodes;
};

}  // namespace gptq::text
