// SPDX-License-Identifier: Apache-2.0
#include "text/phrases.h"

#include <algorithm>
#include <cstring>

#include "base/failure.h"
#include "text/jinja/strings.h"
#include "text/json.h"
#include "text/utf8.h"

namespace gptq::text {
namespace {

// A whole character's bytes, small where that has as many.
std::string_view folded(std::string_view character, char (&out)[4]) {
  const uint32_t code = character_at(character.data()).code, small = jinja::small_letter(code);
  if (small == code) return character;
  const uint32_t size = write_utf8(small, out);
  return size == character.size() ? std::string_view(out, size) : character;
}

std::pmr::string folded(std::string_view text, std::pmr::memory_resource* memory) {
  std::pmr::string out(memory);
  for (char small[4]; !text.empty(); text.remove_prefix(sequence_at(text).bytes)) out += folded(text.substr(0, sequence_at(text).bytes), small);
  return out;
}

}  // namespace

Phrases::Phrases(std::string_view source, const Tokenizer& tokenizer, uint32_t n_vocab, std::pmr::memory_resource* memory)
    : tree_(memory), clean_((n_vocab + 31) / 32, 0, memory) {
  jinja::Heap heap(memory);
  const jinja::Value list = read_json(heap, source, "phrases");
  if (!list.is(jinja::Kind::list) || !list.array->size) base::fail(GPTQ_E_INVALID_ARGUMENT, "phrases: a JSON array of strings is wanted");
  if (list.array->size > phrases_max) base::fail(GPTQ_E_INVALID_ARGUMENT, "phrases: ", list.array->size, " are more than ", phrases_max);
  for (uint32_t i = 0; i < list.array->size; ++i) {
    const jinja::Value& phrase = list.array->items[i];
    if (!phrase.is(jinja::Kind::string) || phrase.view().empty() || phrase.view().size() > bytes_max)
      base::fail(GPTQ_E_INVALID_ARGUMENT, "phrases: /", i, ": a string of 1 to ", bytes_max, " bytes is wanted");
    const std::pmr::string text = folded(phrase.view(), memory);
    tree_.nodes[tree_.add(text)].value = static_cast<uint32_t>(text.size());
  }
  tree_.find_backs([&](LiteralTree::Node& node) {
    if (const uint32_t shorter = tree_.nodes[node.back].value; shorter != LiteralTree::none) node.value = shorter;
  });
  for (uint32_t byte = 0; byte < 256; ++byte) first_[byte] = tree_.next(0, static_cast<uint8_t>(byte));
  for (uint32_t id = 0; id < n_vocab; ++id) {
    Place place;
    const auto token = static_cast<int32_t>(id);
    const bool shows = !(tokenizer.attributes(token) & GPTQ_TOKEN_SPECIAL);
    if (!shows || !read(place, tokenizer.token_bytes(token)).size) clean_[id / 32] |= 1u << (id % 32);
  }
}

// The size of the phrase that ends with these bytes, or 0.
uint32_t Phrases::feed(Place& place, std::string_view bytes) const {
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    place.node_ = place.node_ ? tree_.next(place.node_, byte) : first_[byte];
  }
  const LiteralTree::Node& node = tree_.nodes[place.node_];
  place.depth_ = node.depth;
  return node.value == LiteralTree::none ? 0 : node.value;
}

Phrases::Hit Phrases::read(Place& place, std::string_view bytes) const {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char c = bytes[i];
    if (!place.n_ && static_cast<signed char>(c) >= 0) {
      const char small = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
      if (const uint32_t size = feed(place, {&small, 1})) return {i + 1, size};
      continue;
    }
    place.part_[place.n_++] = c;
    // Characters that are complete, or bytes that belong to none.
    while (place.n_) {
      const std::string_view part(place.part_, place.n_);
      const Sequence sequence = sequence_at(part);
      if (!sequence.valid && may_become_valid(part)) break;
      char small[4];
      const std::string_view bytes_of = part.substr(0, sequence.bytes);
      if (const uint32_t size = feed(place, sequence.valid ? folded(bytes_of, small) : bytes_of)) return {i + 1, size};
      std::memmove(place.part_, place.part_ + sequence.bytes, place.n_ - sequence.bytes);
      place.n_ = static_cast<uint8_t>(place.n_ - sequence.bytes);
    }
  }
  return {};
}

}  // namespace gptq::text
