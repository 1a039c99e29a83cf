// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/token_trie.h"

#include <algorithm>

#include "base/failure.h"

namespace gptq::text::constraint {

TokenTrie::TokenTrie(std::span<const std::string_view> pieces, std::pmr::memory_resource* memory)
    : nodes_(memory), same_(pieces.size(), kNone, memory) {
  std::pmr::vector<uint32_t> order(memory), open(memory);
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].size() > kLongest) base::fail(GPTQ_E_FORMAT, "token ", id, " is longer than ", kLongest, " bytes");
    if (!pieces[id].empty()) order.push_back(id);
  }
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return pieces[a] != pieces[b] ? pieces[a] < pieces[b] : a < b;
  });
  std::string_view last;
  for (uint32_t id : order) {
    const std::string_view piece = pieces[id];
    size_t common = 0;
    while (common < piece.size() && common < last.size() && piece[common] == last[common]) ++common;
    for (; open.size() > common; open.pop_back()) nodes_[open.back()].after = static_cast<uint32_t>(nodes_.size());
    for (size_t i = common; i < piece.size(); ++i) {
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({kNone, 0, static_cast<uint16_t>(i + 1), static_cast<uint8_t>(piece[i])});
    }
    uint32_t* end = &nodes_[open.back()].token;
    while (*end != kNone) end = &same_[*end];
    *end = id;
    last = piece;
  }
  for (uint32_t node : open) nodes_[node].after = static_cast<uint32_t>(nodes_.size());
}

}  // namespace gptq::text::constraint
