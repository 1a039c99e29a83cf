// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/constraint.h"

#include <algorithm>
#include <string>

#include "base/failure.h"
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
  return TokenTrie(pieces, memory);
}

std::pmr::string choices(std::string_view json, std::pmr::memory_resource* memory) {
  jinja::Heap heap(memory);
  const jinja::Value list = read_json(heap, json, "choices");
  if (!list.is(jinja::Kind::list) || list.array->size == 0) base::fail(GPTQ_E_INVALID_ARGUMENT, "choices: a JSON array of strings is wanted");
  std::pmr::string regex(memory);
  for (uint32_t i = 0; i < list.array->size; ++i) {
    const jinja::Value& choice = list.array->items[i];
    if (!choice.is(jinja::Kind::string)) base::fail(GPTQ_E_INVALID_ARGUMENT, "choices: /", i, " is no string");
    if (i) regex += '|';
    for (const char c : choice.view()) {
      if (std::string_view("\\.*+?()[]{}|^$").find(c) != std::string_view::npos) regex += '\\';
      regex += c;
    }
  }
  return regex;
}

Constraint::Constraint(std::string_view regex, const RegexLimits& limits, const TokenTrie& trie, std::span<const int32_t> ends,
                       size_t cache_bytes, std::pmr::memory_resource* memory)
    : trie_(trie),
      ends_(ends.begin(), ends.end(), memory),
      regex_(regex, limits, memory),
      n_slots_(static_cast<uint32_t>(std::min(regex_.states(), cache_bytes / (mask_words() * sizeof(uint32_t) + 1)))),
      masks_(n_slots_ * mask_words(), memory),
      slot_of_(regex_.states(), memory) {}

uint32_t Constraint::step(uint32_t state, std::string_view bytes) const {
  for (const char c : bytes) {
    if (state == Regex::kDead) break;
    state = regex_.step(state, static_cast<uint8_t>(c));
  }
  return state;
}

void Constraint::fill(uint32_t state, bool skips_space, std::span<uint32_t> bits) const {
  regex_.mask(state, skips_space, trie_, bits);
  if (!accepts(state)) return;
  for (const int32_t end : ends_)
    if (end >= 0 && static_cast<size_t>(end) < trie_.tokens()) bits[static_cast<size_t>(end) / 32] |= 1u << (end % 32);
}

std::span<const uint32_t> Constraint::mask(uint32_t state, bool skips_space, std::span<uint32_t> scratch) const {
  const size_t words = mask_words();
  const auto kept = [&](uint32_t slot) { return std::span(masks_).subspan((slot - 1) * words, words); };
  if (!skips_space) {
    if (const uint32_t slot = slot_of_[state].load(std::memory_order_acquire)) return kept(slot);
    // Two threads that need the same mask may both make it: a slot is lost then, nothing else.
    if (n_taken_.load(std::memory_order_relaxed) < n_slots_) {
      const uint32_t slot = n_taken_.fetch_add(1, std::memory_order_relaxed) + 1;
      if (slot <= n_slots_) {
        fill(state, false, kept(slot));
        slot_of_[state].store(slot, std::memory_order_release);
        return kept(slot);
      }
    }
  }
  fill(state, skips_space, scratch.first(words));
  return scratch.first(words);
}

}  // namespace gptq::text::constraint
