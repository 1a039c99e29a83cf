// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/token_trie.h"

#include <algorithm>

#include "base/failure.h"
#include "text/utf8.h"

namespace gptq::text::constraint {

bool TokenTrie::is_plain(std::string_view piece, uint32_t& characters) {
  for (characters = 0; !piece.empty(); ++characters) {
    if (static_cast<uint8_t>(piece[0]) < ' ' || piece[0] == '"' || piece[0] == '\\') return false;
    const Sequence sequence = sequence_at(piece);
    if (!sequence.valid) return false;
    piece.remove_prefix(sequence.bytes);
  }
  return true;
}

TokenTrie::TokenTrie(std::span<const std::string_view> pieces, std::pmr::memory_resource* memory)
    : others(memory),
      nodes_(memory),
      rest_(memory),
      same_(pieces.size(), kNone, memory),
      all_((pieces.size() + 31) / 32, 0, memory),
      plain_((pieces.size() + 31) / 32, 0, memory),
      by_length_(memory),
      length_begins_(memory) {
  std::pmr::vector<uint32_t> order(memory), others(memory), lengths(pieces.size(), 0, memory);
  for (uint32_t id = 0; id < pieces.size(); ++id) {
    if (pieces[id].size() > kLongest) base::fail(GPTQ_E_FORMAT, "token ", id, " is longer than ", kLongest, " bytes");
    if (pieces[id].empty()) continue;
    order.push_back(id);
    all_[id / 32] |= 1u << (id % 32);
  }
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return pieces[a] != pieces[b] ? pieces[a] < pieces[b] : a < b;
  });
  for (const uint32_t id : order) {
    if (!is_plain(pieces[id], lengths[id])) {
      others.push_back(id);
      continue;
    }
    plain_[id / 32] |= 1u << (id % 32);
    by_length_.push_back(id);
  }
  std::stable_sort(by_length_.begin(), by_length_.end(), [&](uint32_t a, uint32_t b) { return lengths[a] < lengths[b]; });
  for (uint32_t i = 0; i < by_length_.size(); ++i)
    while (length_begins_.size() <= lengths[by_length_[i]]) length_begins_.push_back(i);
  build(nodes_, pieces, order);
  build(rest_, pieces, others);
  std::string_view last;
  uint32_t end = kNone;
  for (const uint32_t id : order) {
    if (end != kNone && pieces[id] == last) same_[end] = id;
    last = pieces[id];
    end = id;
  }
}

// Of equal tokens the first alone.
void TokenTrie::build(Nodes& nodes, std::span<const std::string_view> pieces, std::span<const uint32_t> order) {
  std::pmr::vector<uint32_t> open(nodes.get_allocator());
  std::string_view last;
  const auto close = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      Node& node = nodes[open.back()];
      node.after = static_cast<uint32_t>(nodes.size());
      if (open.size() == 1) continue;
      Node& above = nodes[open[open.size() - 2]];
      above.below |= node.below;
      above.deepest = std::max(above.deepest, node.deepest);
    }
  };
  for (const uint32_t id : order) {
    const std::string_view piece = pieces[id];
    size_t common = 0;
    while (common < piece.size() && common < last.size() && piece[common] == last[common]) ++common;
    close(common);
    for (size_t i = common; i < piece.size(); ++i) {
      open.push_back(static_cast<uint32_t>(nodes.size()));
      const uint8_t byte = static_cast<uint8_t>(piece[i]);
      nodes.push_back({.token = kNone, .after = 0, .depth = static_cast<uint16_t>(i + 1), .below = class_of(byte), .byte = byte, .deepest = static_cast<uint8_t>(i + 1), .several = false});
    }
    Node& node = nodes[open.back()];
    if (node.token == kNone) node.token = id;
    else node.several = true;
    last = piece;
  }
  close(0);
}

void TokenTrie::add_plain(uint32_t characters, std::span<uint32_t> bits) const {
  const size_t end = characters + 1 < length_begins_.size() ? length_begins_[characters + 1] : by_length_.size();
  if (end < by_length_.size() / 2) {
    for (size_t i = 0; i < end; ++i) bits[by_length_[i] / 32] |= 1u << (by_length_[i] % 32);
    return;
  }
  for (size_t i = 0; i < plain_.size(); ++i) bits[i] |= plain_[i];
  for (size_t i = end; i < by_length_.size(); ++i) bits[by_length_[i] / 32] &= ~(1u << (by_length_[i] % 32));
}

}  // namespace gptq::text::constraint
