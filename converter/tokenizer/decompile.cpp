// SPDX-License-Identifier: Apache-2.0
// From the section of the model file back to a description.
#include <memory>
#include <memory_resource>

#include "converter/tokenizer/description.h"

namespace gptq::convert {
namespace {

namespace fb = text::fb;

NamedToken named(const TokenizerDescription& t, int32_t id) {
  return id < 0 ? NamedToken{} : NamedToken{id, token_key(t, static_cast<uint32_t>(id))};
}

void read_tokens(const text::TokenizerFile& file, TokenizerDescription& out) {
  for (uint32_t id = 0; id < file.n_tokens(); ++id)
    out.tokens.push_back({std::string(file.text(id)), file.has(id, fb::TokenFlag::symbol), file.has(id, fb::TokenFlag::byte),
                          file.has(id, fb::TokenFlag::special)});
  for (uint32_t rank = 0; rank < file.n_merges(); ++rank) out.merges.push_back(file.merge(rank));
  const auto* added = file.facts().added();
  for (uint32_t i = 0; added && i < added->size(); ++i) {
    const uint8_t flags = file.facts().added_flags()->Get(i);
    const auto has = [flags](fb::AddedFlag flag) { return (flags & static_cast<uint8_t>(flag)) != 0; };
    out.added.push_back({added->Get(i), std::string(file.added_text(i)), has(fb::AddedFlag::lstrip), has(fb::AddedFlag::rstrip),
                         has(fb::AddedFlag::normalized)});
  }
}

template <class T>
std::vector<T> list(const flatbuffers::Vector<T>* values) {
  return values ? std::vector<T>(values->begin(), values->end()) : std::vector<T>();
}

// The section does not hold ignore_merges as such, but which tokens stand whole.
bool has_flags_of(const TokenizerDescription& t, const text::TokenizerFile& file) {
  const std::vector<uint8_t> bytes = compile_tokenizer(t);
  const text::TokenizerFile again(std::as_bytes(std::span(bytes)), UINT32_MAX, std::pmr::new_delete_resource());
  for (uint32_t id = 0; id < file.n_tokens(); ++id)
    if (again.flags(id) != file.flags(id)) return false;
  return true;
}

}  // namespace

TokenizerDescription decompile_tokenizer(std::span<const std::byte> section, uint32_t n_vocab) {
  const text::TokenizerFile file(section, n_vocab, std::pmr::new_delete_resource());
  const fb::Tokenizer& facts = file.facts();
  TokenizerDescription out;
  out.alphabet = facts.alphabet();
  read_tokens(file, out);
  out.nfc = facts.nfc();
  out.trim_spaces = facts.trim_spaces();
  out.mark_spaces_first = facts.mark_spaces_first();
  out.prefix = facts.prefix();
  if (facts.splits())
    for (uint32_t i = 0; i < facts.splits()->size(); ++i) out.splits.push_back(facts.splits()->Get(i));
  for (uint32_t i = 0; facts.patterns() && i < facts.patterns()->size(); ++i) {
    const fb::Pattern& pattern = *facts.patterns()->Get(i);
    out.patterns.push_back({pattern.source() ? pattern.source()->str() : "", pattern.sight()});
  }
  if (facts.pre_tokenizer()) out.pre_tokenizer = facts.pre_tokenizer()->str();
  out.byte_fallback = facts.byte_fallback();
  out.fuse_unk = facts.fuse_unk();
  out.unknown = facts.unk();
  out.before = list(facts.before());
  out.after = list(facts.after());
  out.strips_leading_space = facts.strips_leading_space();
  out.bos = named(out, facts.bos());
  out.eos = named(out, facts.eos());
  out.ignore_merges = !has_flags_of(out, file);
  return out;
}

}  // namespace gptq::convert
