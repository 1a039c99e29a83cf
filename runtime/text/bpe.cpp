// SPDX-License-Identifier: Apache-2.0
// Merging, and how pieces become the symbols that are merged.
#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "text/utf8.h"

namespace gptq::text {
namespace {

constexpr size_t short_max = 64;  // up to here, looking for the smallest rank by scanning beats a heap

size_t smallest(const uint32_t* ranks, size_t n) {
  uint32_t best = no_rank;
  for (size_t i = 0; i < n; ++i) best = std::min(best, ranks[i]);
  return best == no_rank ? n : static_cast<size_t>(std::find(ranks, ranks + n, best) - ranks);
}

}  // namespace

MergeTable::MergeTable(const TokenizerFile& file, std::pmr::memory_resource* memory) : slots_(memory) {
  slots_.resize(std::bit_ceil(file.n_merges() + file.n_merges() / 2 + 1));
  mask_ = slots_.size() - 1;
  for (uint32_t rank = 0; rank < file.n_merges(); ++rank) {
    const Merge merge = file.merge(rank);
    size_t at = start(merge.left, merge.right);
    seen_.set(at % seen_.size());
    const auto taken = [&](const Slot& slot) { return slot.rank != no_rank && (slot.left != merge.left || slot.right != merge.right); };
    while (taken(slots_[at & mask_])) ++at;
    slots_[at & mask_] = {merge.left, merge.right, rank, merge.result};
  }
}

void MergeTable::merge(std::pmr::vector<uint32_t>& symbols) const {
  if (symbols.size() < 2) return;
  if (symbols.size() > short_max) return merge_long(symbols);
  symbols.resize(merge_short(symbols.data(), symbols.size()));
}

size_t MergeTable::merge_short(uint32_t* symbols, size_t n) const {
  uint32_t ranks[short_max], results[short_max];
  const auto look = [&](size_t at) {
    const Slot& slot = find(symbols[at], symbols[at + 1]);
    ranks[at] = slot.rank;
    results[at] = slot.result;
  };
  for (size_t i = 0; i + 1 < n; ++i) look(i);
  for (;;) {
    const size_t at = smallest(ranks, n - 1);
    if (at == n - 1) return n;
    symbols[at] = results[at];
    std::copy(symbols + at + 2, symbols + n, symbols + at + 1);
    std::copy(ranks + at + 1, ranks + n - 1, ranks + at);
    std::copy(results + at + 1, results + n - 1, results + at);
    --n;
    if (at) look(at - 1);
    if (at + 1 < n) look(at);
  }
}

// Symbols are a linked list; the heap holds rank << 32 | position, and an entry counts only while the rank still stands there.
void MergeTable::merge_long(std::pmr::vector<uint32_t>& symbols) const {
  struct Node {
    uint32_t previous, next, rank, result;
  };
  const auto memory = symbols.get_allocator();
  const auto n = static_cast<uint32_t>(symbols.size());
  std::pmr::vector<Node> nodes(n, memory);
  std::pmr::vector<uint64_t> heap(memory);
  const auto later = std::greater<uint64_t>();
  const auto look = [&](uint32_t at) {
    Node& node = nodes[at];
    const Slot& slot = node.next < n ? find(symbols[at], symbols[node.next]) : none_;
    node.rank = slot.rank;
    node.result = slot.result;
    if (slot.rank == no_rank) return false;
    heap.push_back(static_cast<uint64_t>(slot.rank) << 32 | at);
    return true;
  };
  for (uint32_t at = 0; at < n; ++at) {
    nodes[at].previous = at - 1;
    nodes[at].next = at + 1;
    look(at);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto at = static_cast<uint32_t>(top);
    Node& node = nodes[at];
    if (node.rank != top >> 32) continue;
    symbols[at] = node.result;
    nodes[node.next].rank = no_rank;
    node.next = nodes[node.next].next;
    if (node.next < n) nodes[node.next].previous = at;
    if (look(at)) std::push_heap(heap.begin(), heap.end(), later);
    if (at && look(node.previous)) std::push_heap(heap.begin(), heap.end(), later);
  }
  size_t kept = 0;
  for (uint32_t at = 0; at < n; at = nodes[at].next) symbols[kept++] = symbols[at];
  symbols.resize(kept);
}

Bpe::Bpe(const TokenizerFile& file, std::pmr::memory_resource* memory)
    : vocabulary_(file, memory), merges_(file, memory), unknown_(static_cast<uint32_t>(file.facts().unk())),
      characters_(file.facts().alphabet() == fb::Alphabet::characters), fallback_(file.facts().byte_fallback()),
      fuse_unknown_(file.facts().fuse_unk()), cut_(fallback_ || unknown_ != no_token) {
  for (uint32_t rank = 0; rank < file.n_merges(); ++rank) {
    const Merge merge = file.merge(rank);
    const std::string_view left = file.text(merge.left), right = file.text(merge.right);
    if (left.empty() || right.empty()) continue;
    joins_.set(static_cast<unsigned char>(left.back()) * 256u + static_cast<unsigned char>(right.front()));
  }
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::pmr::vector<int32_t>& out) const {
  scratch.after_unknown = false;
  if (characters_) encode_characters(piece, scratch, out);
  else encode_cut(piece, scratch, out);
}

// No merge reaches over a place where no merge has these bytes at its seam: the text is cut there. Where unknown characters would
// vanish, their neighbours can merge, so it is not.
void Bpe::encode_characters(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const {
  size_t begin = 0;
  for (size_t at = 1; cut_ && at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80 || may_merge(text[at - 1], text[at])) continue;
    encode_cut(text.substr(begin, at - begin), scratch, out);
    begin = at;
  }
  encode_cut(text.substr(begin), scratch, out);
}

void Bpe::encode_cut(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const {
  if (scratch.after_unknown) return encode_new(text, scratch, out);
  if (const auto known = scratch.cache.find(text); !known.empty()) {
    out.insert(out.end(), known.begin(), known.end());
    return;
  }
  const size_t before = out.size();
  encode_new(text, scratch, out);
  if (!scratch.after_unknown) scratch.cache.keep(text, std::span(out).subspan(before));
}

void Bpe::encode_new(std::string_view text, Scratch& scratch, std::pmr::vector<int32_t>& out) const {
  if (const uint32_t id = vocabulary_.whole(text); id != no_token) {
    scratch.after_unknown = false;
    out.push_back(static_cast<int32_t>(id));
    return;
  }
  scratch.symbols.clear();
  if (characters_) add_characters(text, scratch);
  else add_bytes(text, scratch);
  merges_.merge(scratch.symbols);
  out.insert(out.end(), scratch.symbols.begin(), scratch.symbols.end());
}

void Bpe::add_unknown(Scratch& scratch) const {
  if (unknown_ != no_token && !(fuse_unknown_ && scratch.after_unknown)) scratch.symbols.push_back(unknown_);
  scratch.after_unknown = true;
}

void Bpe::add_bytes(std::string_view text, Scratch& scratch) const {
  for (const char c : text) {
    const uint32_t id = vocabulary_.byte(static_cast<unsigned char>(c));
    if (id == no_token) {
      add_unknown(scratch);
      continue;
    }
    scratch.symbols.push_back(id);
    scratch.after_unknown = false;
  }
}

void Bpe::add_characters(std::string_view text, Scratch& scratch) const {
  while (!text.empty()) {
    const std::string_view character = text.substr(0, character_at(text.data()).bytes);
    text.remove_prefix(character.size());
    const auto has_byte = [&](char c) { return vocabulary_.fallback(static_cast<unsigned char>(c)) != no_token; };
    if (const uint32_t id = vocabulary_.character(character); id != no_token) {
      scratch.symbols.push_back(id);
      scratch.after_unknown = false;
    } else if (fallback_ && std::all_of(character.begin(), character.end(), has_byte)) {
      for (const char c : character) scratch.symbols.push_back(vocabulary_.fallback(static_cast<unsigned char>(c)));
      scratch.after_unknown = false;
    } else {
      add_unknown(scratch);
    }
  }
}

}  // namespace gptq::text
