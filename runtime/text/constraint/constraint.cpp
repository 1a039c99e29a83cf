// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/constraint.h"

#include <algorithm>
#include <string>

#include "base/failure.h"
#include "text/constraint/sources.h"
#include "text/json.h"

namespace gptq::text::constraint {

TokenTrie trie_of(const Tokenizer& tokenizer, uint32_t n_vocab, std::span<const int32_t> ends, std::pmr::memory_resource* memory) {
  std::pmr::vector<std::string_view> pieces(n_vocab, memory);
  for (uint32_t id = 0; id < n_vocab; ++id) {
    const int32_t token = static_cast<int32_t>(id);
    const std::string_view bytes = tokenizer.token_bytes(token);
    if (bytes.size() <= TokenTrie::kLongest && !(tokenizer.attributes(token) & GPTQ_TOKEN_SPECIAL)) pieces[id] = bytes;
  }
  for (int32_t end : ends)
    if (end >= 0 && static_cast<uint32_t>(end) < n_vocab) pieces[static_cast<size_t>(end)] = {};
  TokenTrie trie(pieces, memory);
  for (uint32_t id = 0; id < n_vocab; ++id)
    if (const auto token = static_cast<int32_t>(id); pieces[id].empty() && std::find(ends.begin(), ends.end(), token) == ends.end())
      trie.others.push_back({id, tokenizer.token_bytes(token)});
  return trie;
}

Constraint::Constraint(Kind kind, std::string_view source, const TokenTrie& trie, std::span<const int32_t> ends, size_t cache_bytes,
                       std::pmr::memory_resource* memory)
    : trie_(trie),
      ends_(ends.begin(), ends.end(), memory),
      n_slots_(static_cast<uint32_t>(std::clamp<size_t>(cache_bytes / (mask_words() * sizeof(uint32_t) + 1), 1, 60'000))),
      masks_(n_slots_ * mask_words(), memory),
      owners_(n_slots_, 0, memory),
      slot_of_(memory),
      complete_(memory) {
  if (kind == Kind::json_schema || kind == Kind::json_compact) machine_ = &schema_.emplace(source, kind == Kind::json_compact, memory);
  else if (kind == Kind::tags) machine_ = &tags_.emplace(source, memory);
  else
    machine_ = &grammar_.emplace(kind == Kind::choice  ? choices(source, memory)
                                 : kind == Kind::regex ? regex(source, memory)
                                                       : grammar(source, memory),
                                 GrammarSize{}, memory);
  slot_of_.resize(machine_->states_max());
  complete_.resize(machine_->states_max());
  // A source whose first state alone takes more than there is will not do.
  if (start() == lost) base::fail(GPTQ_E_INVALID_ARGUMENT, "the constraint needs more memory for its first state than the limit");
  if (start() == dead) base::fail(GPTQ_E_INVALID_ARGUMENT, "no text is allowed by the constraint");
}

// After work on the machine: false where it ran out of place, and all states were forgotten.
bool Constraint::settle() const {
  if (!machine_->full()) return true;
  machine_->clear();
  std::fill(owners_.begin(), owners_.end(), 0u);
  std::fill(slot_of_.begin(), slot_of_.end(), uint16_t{0});
  std::fill(complete_.begin(), complete_.end(), uint8_t{0});
  ++epoch_;
  return false;
}

Constraint::State Constraint::start() const {
  const std::lock_guard lock(guard_);
  uint32_t state = machine_->start();
  if (!settle()) {
    state = machine_->start();
    if (!settle()) return lost;
  }
  return named(state);
}

Constraint::State Constraint::step(State state, std::string_view bytes) const {
  if (state == dead || state == lost) return state;
  const std::lock_guard lock(guard_);
  if (!knows(state)) return lost;
  uint32_t at = static_cast<uint32_t>(state);
  for (const char c : bytes) at = machine_->next(at, static_cast<uint8_t>(c));
  return settle() ? named(at) : lost;
}

void Constraint::Spaces::learn(std::string_view text) {
  constexpr std::string_view white = " \n\t\r";
  for (size_t i = 0; i < behind.size(); ++i)
    for (size_t at = text.size(); (at = text.rfind(behind[i], at)) != std::string_view::npos; --at) {
      const size_t end = text.find_first_not_of(white, at + 1);
      if (end != std::string_view::npos) runs[i] = text.substr(at + 1, end - at - 1);
      if (end != std::string_view::npos || at == 0) break;
    }
}

size_t Constraint::foresee(State state, char last, const Spaces& spaces, std::span<char> out) const {
  const std::lock_guard lock(guard_);
  if (!knows(state)) return 0;
  uint32_t at = static_cast<uint32_t>(state);
  size_t n = 0;
  const auto go = [&](char byte) {
    const uint32_t to = n < out.size() ? machine_->next(at, static_cast<uint8_t>(byte)) : Machine::dead;
    if (to == Machine::dead) return false;
    at = to;
    out[n++] = last = byte;
    return true;
  };
  for (;;) {
    const int byte = machine_->likely(at);
    if (byte < 0) break;
    if (const size_t which = Spaces::behind.find(last); which != std::string_view::npos && machine_->next(at, ' ') != Machine::dead)
      for (const char space : spaces.runs[which]) go(space);
    if (!go(static_cast<char>(byte))) break;
  }
  return settle() ? n : 0;
}

bool Constraint::accepts(State state) const {
  const std::lock_guard lock(guard_);
  return knows(state) && machine_->accepting(static_cast<uint32_t>(state));
}

bool Constraint::complete(State state) const {
  const std::lock_guard lock(guard_);
  const uint32_t at = static_cast<uint32_t>(state);
  if (!knows(state) || !machine_->accepting(at)) return false;
  if (complete_[at]) return complete_[at] == 2;
  bool more = false;
  for (unsigned byte = 0; byte < 256 && !more; ++byte) more = machine_->next(at, static_cast<uint8_t>(byte)) != Machine::dead;
  if (!settle()) return false;
  complete_[at] = more ? 1 : 2;
  return !more;
}

// All but the few that go on wrongly behind a trigger.
void Constraint::fill_free_text(uint32_t state, std::span<uint32_t> bits) const {
  std::ranges::copy(trie_.all(), bits.begin());
  const TokenTrie::Nodes& nodes = trie_.nodes();
  uint32_t stack[TokenTrie::kLongest + 1];
  stack[0] = state;
  for (uint32_t n = 0; n < nodes.size();) {
    const TokenTrie::Node& node = nodes[n];
    const uint32_t from = stack[node.depth - 1u];
    if (!(node.below & tags_->completing_classes()) && tags_->is_free(from)) {
      n = node.after;
      continue;
    }
    stack[node.depth] = machine_->next(from, node.byte);
    if (stack[node.depth] != Machine::dead) {
      ++n;
      continue;
    }
    for (; n < node.after; ++n)
      for (uint32_t token = nodes[n].token; token != TokenTrie::kNone; token = trie_.same(token)) bits[token / 32] &= ~(1u << (token % 32));
  }
}

void Constraint::fill_text(uint32_t state, bool skips_space, std::span<uint32_t> bits) const {
  std::fill(bits.begin(), bits.end(), 0u);
  uint32_t bytes_max = TokenTrie::kLongest;
  const uint32_t loose = schema_ && !skips_space ? schema_->loose(state, bytes_max) : Machine::dead, first = loose ? loose : state;
  const uint32_t plain = skips_space ? 0 : machine_->plain_run(first);
  if (plain) trie_.add_plain(plain, bits);
  const TokenTrie::Nodes& nodes = plain ? trie_.rest() : trie_.nodes();
  const auto add = [&](const TokenTrie::Node& node) {
    uint32_t token = node.token;
    if (token != TokenTrie::kNone) bits[token / 32] |= 1u << (token % 32);
    while (node.several && (token = trie_.same(token)) != TokenTrie::kNone) bits[token / 32] |= 1u << (token % 32);
  };
  uint32_t stack[TokenTrie::kLongest + 1];
  char path[TokenTrie::kLongest + 1];
  stack[0] = first;
  for (uint32_t n = 0; n < nodes.size();) {
    const TokenTrie::Node& node = nodes[n];
    if (constexpr uint32_t large = 32;
        node.after - n >= large && !skips_space && node.deepest <= bytes_max && !(node.below & ~machine_->loops(stack[node.depth - 1u]))) {
      for (; n < node.after; ++n) add(nodes[n]);
      continue;
    }
    const bool skipped = skips_space && node.depth == 1 && node.byte == ' ';
    uint32_t to = skipped ? state : machine_->next(stack[node.depth - 1u], node.byte);
    if (loose && (to == SchemaMachine::doubt || (to != Machine::dead && node.depth > bytes_max))) to = schema_->exactly(state, stack[node.depth - 1u], {path, node.depth - 1u}, node.byte);
    if (to == Machine::dead) {
      if (machine_->full()) return;
      n = node.after;
      continue;
    }
    stack[node.depth] = to;
    path[node.depth - 1u] = static_cast<char>(node.byte);
    add(node);
    ++n;
  }
}

void Constraint::fill(uint32_t state, bool skips_space, std::span<uint32_t> bits) const {
  if (tags_ && !skips_space && tags_->is_free(state)) fill_free_text(state, bits);
  else fill_text(state, skips_space, bits);
  for (size_t i = 0; tags_ && i < trie_.others.size(); ++i)
    if (const TokenTrie::Other& other = trie_.others[i]; tags_->takes_whole(state, other.bytes)) bits[other.token / 32] |= 1u << (other.token % 32);
  if (!machine_->accepting(state)) return;
  for (const int32_t end : ends_)
    if (end >= 0 && static_cast<size_t>(end) < trie_.tokens()) bits[static_cast<size_t>(end) / 32] |= 1u << (end % 32);
}

bool Constraint::mask(State state, bool skips_space, std::span<uint32_t> bits) const {
  const std::lock_guard lock(guard_);
  if (!knows(state)) return false;
  const size_t words = mask_words();
  const uint32_t at = static_cast<uint32_t>(state);
  const auto kept = [&](uint32_t slot) { return std::span(masks_).subspan(slot * words, words); };
  if (!skips_space && slot_of_[at]) {
    std::ranges::copy(kept(slot_of_[at] - 1u), bits.begin());
    return true;
  }
  fill(at, skips_space, bits.first(words));
  if (!settle()) return false;
  if (skips_space) return true;
  const uint32_t slot = std::exchange(next_slot_, (next_slot_ + 1) % n_slots_);
  slot_of_[owners_[slot]] = 0;
  owners_[slot] = at;
  slot_of_[at] = static_cast<uint16_t>(slot + 1);
  std::ranges::copy(bits.first(words), kept(slot).begin());
  return true;
}

}  // namespace gptq::text::constraint
