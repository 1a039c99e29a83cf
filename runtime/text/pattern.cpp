// SPDX-License-Identifier: Apache-2.0
#include "text/pattern.h"

namespace gptq::text {
namespace {

constexpr uint16_t matched = 0x8000;
// So far behind the last place where it could end, a match is given up: this bounds the work at each byte of a text.
constexpr size_t patience = 4096;

}  // namespace

Pattern::Pattern(const fb::Tokenizer& facts, const fb::Pattern& pattern)
    : next_(pattern.next()->data()), start_(pattern.start()->data()), n_classes_(facts.n_classes()), behavior_(pattern.behavior()),
      invert_(pattern.invert()), looks_behind_(pattern.start()->size() > 1) {
  if (facts.class_index()) {
    index_ = facts.class_index()->data();
    n_index_ = facts.class_index()->size();
  }
  if (facts.class_blocks()) blocks_ = facts.class_blocks()->data();
  if (pattern.sight() == fb::Sight::bytes) byte_classes_ = facts.byte_classes()->data();
}

// The class of the character at at, which moves behind it.
uint32_t Pattern::class_at(std::string_view text, size_t& at) const {
  if (byte_classes_) return byte_classes_[static_cast<unsigned char>(text[at++])];
  const Character c = character_at(text.data() + at);
  at += c.bytes;
  const uint32_t block = c.code >> 7;
  return block < n_index_ ? blocks_[index_[block] * 128u + c.code % 128] : 0;
}

// Where the match that begins at at ends, or no_match. before: the class before, n_classes_ for none.
size_t Pattern::match_end(std::string_view text, size_t at, uint32_t before) const {
  size_t end = no_match, given_up = at + patience;
  uint32_t state = start_[looks_behind_ ? before : 0];
  while (state) {
    const size_t here = at;
    const uint32_t c = at < text.size() ? class_at(text, at) : n_classes_;
    const uint16_t step = next_[state * (n_classes_ + 1) + c];
    if (step & matched) {
      end = here;
      given_up = here + patience;
    }
    if (c == n_classes_ || at > given_up) break;
    state = step & ~matched;
  }
  return end;
}

// An empty match does not count where the one before has ended.
bool Pattern::next_match(std::string_view text, size_t from, Match& m) const {
  uint32_t before = n_classes_;
  size_t at = from;
  if (from && looks_behind_) {
    size_t last = byte_classes_ ? from - 1 : last_character(text.substr(0, from));
    before = class_at(text, last);
  }
  while (at <= text.size()) {
    const size_t end = match_end(text, at, before);
    if (end != no_match && (end > at || !m.any || at != m.end)) {
      m = {at, end, true};
      return true;
    }
    if (at == text.size()) break;
    before = class_at(text, at);
  }
  return false;
}

}  // namespace gptq::text
