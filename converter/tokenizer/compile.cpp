// SPDX-License-Identifier: Apache-2.0
// From a description to the section of the model file.
#include "converter/tokenizer/description.h"

#include <memory>
#include <memory_resource>

#include "base/failure.h"
#include "converter/tokenizer/patterns.h"
#include "text/added_tokens.h"
#include "text/bpe.h"

namespace gptq::convert {
namespace {

namespace fb = text::fb;

template <class Flag>
uint8_t bit(bool set, Flag flag) {
  return set ? static_cast<uint8_t>(flag) : 0;
}

void check_limits(const TokenizerDescription& t) {
  const auto refuse = [](auto... parts) { base::fail(GPTQ_E_UNSUPPORTED, "tokenizer: ", parts...); };
  if (t.tokens.empty() || t.tokens.size() > 1u << 20) refuse(t.tokens.size(), " tokens, supported are 1 to 1048576");
  if (t.merges.size() > 2u << 20) refuse(t.merges.size(), " merges, supported are 2097152");
  for (size_t id = 0; id < t.tokens.size(); ++id)
    if (t.tokens[id].text.size() > 4096) refuse("token ", id, " has ", t.tokens[id].text.size(), " bytes, supported are 4096");
  for (const auto& added : t.added)
    if (added.text.empty() || added.text.size() > text::AddedTokens::text_bytes_max)
      refuse("added token ", added.id, " has ", added.text.size(), " bytes, supported are 1 to ", text::AddedTokens::text_bytes_max);
}

std::vector<uint8_t> build(const TokenizerDescription& t, const CompiledPatterns& compiled, const std::vector<uint8_t>& flags) {
  std::vector<uint8_t> texts, added_flags, added_texts;
  std::vector<uint32_t> ends, merges, added, added_ends;
  for (const auto& token : t.tokens) {
    texts.insert(texts.end(), token.text.begin(), token.text.end());
    ends.push_back(static_cast<uint32_t>(texts.size()));
  }
  for (const text::Merge& merge : t.merges) merges.insert(merges.end(), {merge.left, merge.right, merge.result});
  for (const auto& token : t.added) {
    added.push_back(token.id);
    added_texts.insert(added_texts.end(), token.text.begin(), token.text.end());
    added_ends.push_back(static_cast<uint32_t>(added_texts.size()));
    added_flags.push_back(bit(token.lstrip, fb::AddedFlag::lstrip) | bit(token.rstrip, fb::AddedFlag::rstrip) |
                          bit(token.normalized, fb::AddedFlag::normalized));
  }
  flatbuffers::FlatBufferBuilder builder(1 << 16);
  std::vector<flatbuffers::Offset<fb::Pattern>> patterns;
  for (size_t i = 0; i < t.patterns.size(); ++i) {
    const CompiledPatterns::Pattern& p = compiled.patterns[i];
    patterns.push_back(
        fb::CreatePatternDirect(builder, t.patterns[i].source.c_str(), &p.table.next, &p.table.start, p.behavior, p.invert, t.patterns[i].sight));
  }
  const regex::Classes& classes = compiled.classes;
  const auto optional = [&](const auto& list) { return patterns.empty() ? nullptr : &list; };
  const auto root = fb::CreateTokenizerDirect(
      builder, t.alphabet, &texts, &ends, &flags, &merges, &added, &added_texts, &added_ends, &added_flags, t.nfc, t.trim_spaces,
      t.mark_spaces_first, t.prefix, &t.splits, t.byte_fallback, t.unknown, t.fuse_unk, t.bos.id, t.eos.id, &t.before, &t.after,
      t.strips_leading_space, optional(patterns), t.pre_tokenizer.empty() ? nullptr : t.pre_tokenizer.c_str(),
      patterns.empty() ? 0 : classes.n, optional(classes.index), optional(classes.blocks),
      compiled.byte_classes.empty() ? nullptr : &compiled.byte_classes);
  fb::FinishTokenizerBuffer(builder, root);
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

// A token is whole where merging its text gives that token again (or where merging is passed over for such texts).
void find_whole(const TokenizerDescription& t, const CompiledPatterns& compiled, std::vector<uint8_t>& flags) {
  const std::vector<uint8_t> bytes = build(t, compiled, flags);
  auto* memory = std::pmr::new_delete_resource();
  const text::TokenizerFile file(std::as_bytes(std::span(bytes)), UINT32_MAX, memory);
  const auto bpe = std::make_unique<text::Bpe>(file, memory);  // its tables are too big for a stack
  text::Bpe::Scratch scratch(0, memory);
  std::pmr::vector<int32_t> ids(memory);
  for (size_t id = 0; id < t.tokens.size(); ++id) {
    const auto& token = t.tokens[id];
    if (!token.symbol || token.text.empty()) continue;
    ids.clear();
    if (!t.ignore_merges) bpe->encode(token.text, scratch, ids);
    if (t.ignore_merges || (ids.size() == 1 && ids[0] == static_cast<int32_t>(id))) flags[id] |= bit(true, fb::TokenFlag::whole);
  }
}

}  // namespace

std::vector<uint8_t> compile_tokenizer(const TokenizerDescription& t) {
  check_limits(t);
  std::vector<uint8_t> flags(t.tokens.size());
  for (size_t id = 0; id < flags.size(); ++id)
    flags[id] = bit(t.tokens[id].special, fb::TokenFlag::special) | bit(t.tokens[id].byte, fb::TokenFlag::byte) |
                bit(t.tokens[id].symbol, fb::TokenFlag::symbol);
  for (const auto& added : t.added) flags[added.id] |= bit(true, fb::TokenFlag::added);
  const CompiledPatterns compiled = compile_patterns(t.patterns);
  find_whole(t, compiled, flags);
  return build(t, compiled, flags);
}

}  // namespace gptq::convert
