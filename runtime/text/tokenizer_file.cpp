// SPDX-License-Identifier: Apache-2.0
// What must hold in a tokenizer section before anything is built from it.
#include "text/tokenizer_file.h"

#include <algorithm>
#include <cstring>

#include "base/failure.h"
#include "text/added_tokens.h"

namespace gptq::text {
namespace {

constexpr size_t blob_bytes_max = 64u << 20;
constexpr uint32_t n_tokens_max = 1u << 20, n_merges_max = 2u << 20, token_bytes_max = 4096, n_splits_max = 8;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  base::fail(GPTQ_E_FORMAT, "tokenizer section: ", parts..., "; convert the model again");
}

template <class Vector>
uint32_t size(const Vector* vector) {
  return vector ? vector->size() : 0;
}

}  // namespace

TokenizerFile::TokenizerFile(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* memory) : n_vocab_(n_vocab) {
  if (blob.size() < 8 || blob.size() > blob_bytes_max) refuse(blob.size(), " bytes, allowed are 8 to ", blob_bytes_max);
  if (reinterpret_cast<uintptr_t>(blob.data()) % 8) {
    aligned_ = base::Buffer(memory, blob.size());
    std::memcpy(aligned_.data(), blob.data(), blob.size());
    blob = aligned_.bytes();
  }
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(blob.data()), blob.size());
  if (!fb::VerifyTokenizerBuffer(verifier)) refuse("damaged");
  facts_ = fb::GetTokenizer(blob.data());
  check_texts();
  check_enums();
  check_patterns();
  check_ids();
  check_added();
}

void TokenizerFile::check_texts() const {
  const auto& ends = *facts_->text_end();
  if (ends.size() == 0 || ends.size() > n_tokens_max) refuse(ends.size(), " tokens, allowed are 1 to ", n_tokens_max);
  if (facts_->flags()->size() != ends.size()) refuse(facts_->flags()->size(), " flags for ", ends.size(), " tokens");
  uint32_t begin = 0;
  for (uint32_t id = 0; id < ends.size(); ++id) {
    const uint32_t end = ends[id];
    if (end < begin || end > facts_->text()->size() || end - begin > token_bytes_max)
      refuse("token ", id, " has its text from ", begin, " to ", end);
    begin = end;
  }
}

void TokenizerFile::check_enums() const {
  if (facts_->alphabet() > fb::Alphabet::MAX) refuse("unknown alphabet ", static_cast<int>(facts_->alphabet()));
  if (facts_->prefix() > fb::Prefix::MAX) refuse("unknown prefix ", static_cast<int>(facts_->prefix()));
  if (size(facts_->splits()) > n_splits_max) refuse(facts_->splits()->size(), " splits");
  for (uint32_t i = 0; i < size(facts_->splits()); ++i)
    if (facts_->splits()->Get(i) > fb::Split::MAX) refuse("unknown split ", static_cast<int>(facts_->splits()->Get(i)));
}

void TokenizerFile::check_patterns() const {
  const auto* patterns = facts_->patterns();
  const auto n_used = facts_->splits() ? std::count(facts_->splits()->begin(), facts_->splits()->end(), fb::Split::pattern) : 0;
  if (n_used != static_cast<ptrdiff_t>(size(patterns))) refuse(size(patterns), " patterns for ", n_used, " splits");
  if (!n_used) return;
  const uint32_t n = facts_->n_classes(), n_blocks = size(facts_->class_blocks()) / 128, n_bytes = size(facts_->byte_classes());
  if (n == 0 || n > 255 || size(facts_->class_blocks()) % 128 || (n_bytes && n_bytes != 256)) refuse(n, " classes of characters");
  const auto check = [](const auto* values, uint32_t mask, uint32_t limit, const char* what) {
    for (uint32_t i = 0; i < size(values); ++i)
      if ((values->Get(i) & mask) >= limit) refuse(what, " ", values->Get(i), " of ", limit);
  };
  check(facts_->class_index(), 0xFFFF, n_blocks, "block");
  check(facts_->class_blocks(), 0xFF, n, "class");
  check(facts_->byte_classes(), 0xFF, n, "class");
  for (const fb::Pattern* pattern : *patterns) {
    const uint32_t n_states = pattern->next()->size() / (n + 1), n_starts = pattern->start()->size();
    if (pattern->next()->size() % (n + 1) || (n_starts != 1 && n_starts != n + 1) || pattern->behavior() > fb::Behavior::MAX || pattern->sight() > fb::Sight::MAX)
      refuse("a pattern of ", pattern->next()->size(), " steps and ", n_starts, " starts");
    if (pattern->sight() == fb::Sight::bytes && !n_bytes) refuse("a pattern over bytes without their classes");
    check(pattern->next(), 0x7FFF, n_states, "state");
    check(pattern->start(), 0xFFFF, n_states, "state");
  }
}

void TokenizerFile::check_id(uint32_t id, std::string_view what) const {
  if (id >= n_tokens()) refuse(what, " is token ", id, " of ", n_tokens());
  if (id >= n_vocab_)
    base::fail(GPTQ_E_FORMAT, "tokenizer section: ", what, " is token ", id, " but the model has ", n_vocab_,
               " rows in its embedding; the tokenizer belongs to another model");
}

void TokenizerFile::check_ids() const {
  const auto used = static_cast<uint8_t>(fb::TokenFlag::symbol | fb::TokenFlag::whole | fb::TokenFlag::byte);
  for (uint32_t id = n_vocab_; id < n_tokens(); ++id)
    if (flags(id) & used) check_id(id, "a symbol");
  const auto& merges = *facts_->merges();
  if (merges.size() % 3 || merges.size() / 3 > n_merges_max) refuse(merges.size(), " numbers for merges");
  const uint32_t limit = std::min(n_tokens(), n_vocab_);
  for (uint32_t i = 0; i < merges.size(); ++i)
    if (merges[i] >= limit) check_id(merges[i], "a part of a merge");
  if (facts_->unk() != -1) check_id(static_cast<uint32_t>(facts_->unk()), "the unknown token");
  if (facts_->bos() != -1) check_id(static_cast<uint32_t>(facts_->bos()), "the begin token");
  if (facts_->eos() != -1) check_id(static_cast<uint32_t>(facts_->eos()), "the end token");
  for (const auto* ids : {facts_->before(), facts_->after()})
    for (uint32_t i = 0; i < size(ids); ++i) check_id(ids->Get(i), "a token around the text");
}

void TokenizerFile::check_added() const {
  const uint32_t n = size(facts_->added());
  const auto* ends = facts_->added_text_end();
  if (n > n_tokens() || n != size(facts_->added_flags()) || n != size(ends)) refuse(n, " added tokens without as many flags and texts");
  uint32_t begin = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t id = facts_->added()->Get(i);
    if (id >= n_tokens()) refuse("added token ", id, " of ", n_tokens());
    const uint32_t end = ends->Get(i);
    if (end <= begin || end > size(facts_->added_text()) || end - begin > AddedTokens::text_bytes_max)
      refuse("added token ", id, " has its text from ", begin, " to ", end);
    begin = end;
  }
}

}  // namespace gptq::text
