// SPDX-License-Identifier: Apache-2.0
// Building the tables of the vocabulary.
#include "text/vocabulary.h"

#include <bit>

#include "text/utf8.h"

namespace gptq::text {

void TextTable::reserve(size_t n) {
  slots_.resize(std::bit_ceil(2 * n + 1));
  mask_ = slots_.size() - 1;
}

// The first of two tokens with the same text stays.
void TextTable::insert(uint32_t id) {
  const std::string_view text = file_.text(id);
  if (find(text) != no_token) return;
  const uint64_t key = key_of(text);
  size_t at = start(key, text.size());
  while (slots_[at & mask_].id != no_token) ++at;
  slots_[at & mask_] = {key, static_cast<uint32_t>(text.size()), id};
}

namespace {

bool is_character(std::string_view text) {
  return text.size() > 1 && text.size() <= 4 && valid_prefix(text) == text.size() && character_at(text.data()).bytes == text.size();
}

}  // namespace

Vocabulary::Vocabulary(const TokenizerFile& file, std::pmr::memory_resource* memory) : whole_(file, memory), characters_(file, memory) {
  bytes_.fill(no_token);
  fallback_.fill(no_token);
  const bool characters = file.facts().alphabet() == fb::Alphabet::characters;
  size_t n_whole = 0, n_characters = 0;
  for (uint32_t id = 0; id < file.n_tokens(); ++id) {
    n_whole += file.has(id, fb::TokenFlag::whole);
    n_characters += characters && file.has(id, fb::TokenFlag::symbol) && is_character(file.text(id));
  }
  whole_.reserve(n_whole);
  characters_.reserve(n_characters);
  for (uint32_t id = 0; id < file.n_tokens(); ++id) {
    const std::string_view text = file.text(id);
    if (file.has(id, fb::TokenFlag::whole)) whole_.insert(id);
    if (text.size() == 1 && file.has(id, fb::TokenFlag::byte)) fallback_[static_cast<unsigned char>(text[0])] = id;
    if (!file.has(id, fb::TokenFlag::symbol)) continue;
    if (text.size() == 1) bytes_[static_cast<unsigned char>(text[0])] = id;
    else if (characters && is_character(text)) characters_.insert(id);
  }
}

}  // namespace gptq::text
