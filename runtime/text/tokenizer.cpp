// SPDX-License-Identifier: Apache-2.0
// The way of a text: repaired, split at added tokens, normalized, cut into pieces, merged.
#include "text/tokenizer.h"

#include <algorithm>
#include <array>

#include "base/failure.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/nfc.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace gptq::text {
namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581

void mark_to_space(std::pmr::string& text) {
  size_t to = text.find(space_mark);
  if (to == std::string::npos) return;
  for (size_t from = to; from < text.size();) {
    const bool mark = std::string_view(text).substr(from).starts_with(space_mark);
    text[to++] = mark ? ' ' : text[from];
    from += mark ? space_mark.size() : 1;
  }
  text.resize(to);
}

void collapse_spaces(std::pmr::string& text) {
  size_t to = 0;
  for (const char c : text)
    if (c != ' ' || (to && text[to - 1] != ' ')) text[to++] = c;
  text.resize(to);
}

bool touches(std::span<const ByteRange> ranges, size_t begin, size_t end) {
  const auto at = std::upper_bound(ranges.begin(), ranges.end(), begin, [](size_t place, const ByteRange& range) { return place < range.end; });
  return at != ranges.end() && at->begin < end;
}

void trim_end(std::pmr::string& text) {
  while (text.ends_with(' ')) text.pop_back();
}

}  // namespace

struct Tokenizer::Impl {
  Impl(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* memory);

  struct Call {
    bool special;  // honoured in this stretch
    Bpe::Scratch scratch;
    std::pmr::vector<int32_t>& out;
    std::pmr::memory_resource* memory() const { return out.get_allocator().resource(); }  // for what the call needs
  };
  void encode(std::string_view text, EncodeOptions options, std::pmr::vector<int32_t>& out) const;
  void encode_stretch(std::string_view text, bool begins, Call& call) const;
  void encode_plain(std::string_view text, bool begins, Call& call) const;
  void normalize(std::pmr::string& text) const;
  bool needs_normalizing(std::string_view text) const;
  void collect_splits();
  void collect_added();

  std::pmr::memory_resource* memory;
  TokenizerFile file;
  const fb::Tokenizer& facts;
  Bpe bpe;
  AddedTokens raw, normalized;
  std::pmr::string normalized_texts;  // what the normalized ones look for
  std::array<Splitter, 8> splits{};
  size_t n_splits = 0;
  bool characters;
};

Tokenizer::Impl::Impl(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* m)
    : memory(m), file(blob, n_vocab, m), facts(file.facts()), bpe(file, m), raw(m), normalized(m), normalized_texts(m),
      characters(facts.alphabet() == fb::Alphabet::characters) {
  collect_splits();
  collect_added();
}

void Tokenizer::Impl::collect_splits() {
  if (!facts.splits()) return;
  uint32_t n_patterns = 0;
  for (uint32_t i = 0; i < facts.splits()->size(); ++i) {
    const fb::Split split = facts.splits()->Get(i);
    Splitter& splitter = splits[n_splits++];
    splitter.scan = scanner(split);
    splitter.space_first = split == fb::Split::space_first;
    if (split == fb::Split::pattern) splitter.pattern = Pattern(facts, *facts.patterns()->Get(n_patterns++));
  }
}

void Tokenizer::Impl::collect_added() {
  if (!facts.added()) return;
  std::pmr::vector<AddedToken> found_raw(memory), found_normalized(memory);
  std::pmr::vector<size_t> ends(memory);
  for (uint32_t i = 0; i < facts.added()->size(); ++i) {
    const uint32_t id = facts.added()->Get(i);
    if (id >= file.n_vocab()) continue;
    const uint8_t flags = facts.added_flags()->Get(i);
    const auto has = [flags](fb::AddedFlag flag) { return (flags & static_cast<uint8_t>(flag)) != 0; };
    AddedToken token{file.added_text(i), id, file.has(id, fb::TokenFlag::special), has(fb::AddedFlag::lstrip), has(fb::AddedFlag::rstrip)};
    if (!has(fb::AddedFlag::normalized)) {
      found_raw.push_back(token);
      continue;
    }
    std::pmr::string text(memory);
    append_repaired(token.text, text);
    normalize(text);
    if (text.empty()) continue;
    normalized_texts += text;
    ends.push_back(normalized_texts.size());
    found_normalized.push_back(token);
  }
  for (size_t i = 0, begin = 0; i < ends.size(); begin = ends[i++])
    found_normalized[i].text = std::string_view(normalized_texts).substr(begin, ends[i] - begin);
  raw.assign(std::move(found_raw));
  normalized.assign(std::move(found_normalized));
}

void Tokenizer::Impl::encode(std::string_view text, EncodeOptions options, std::pmr::vector<int32_t>& out) const {
  if (text.size() >= UINT32_MAX) base::fail(GPTQ_E_TEXT, "a text of ", text.size(), " bytes; give it in parts below 4 GiB");
  std::pmr::memory_resource* const work = out.get_allocator().resource();
  std::pmr::string repaired(work);
  if (valid_prefix(text) != text.size()) {
    append_repaired(text, repaired);
    text = repaired;
  }
  const auto add = [&out](const flatbuffers::Vector<uint32_t>* ids) {
    if (ids) out.insert(out.end(), ids->begin(), ids->end());
  };
  if (options.add_bos) add(facts.before());
  const auto honours = [&](size_t begin, size_t end) { return options.parse_special && !touches(options.plain, begin, end); };
  Call call{false, Bpe::Scratch(text.size(), work), out};
  const auto encode_between = [&](std::string_view stretch, bool begins) {
    const auto at = static_cast<size_t>(stretch.data() - text.data());
    call.special = honours(at, at + stretch.size());
    encode_stretch(stretch, begins, call);
  };
  raw.split(text, honours, encode_between, [&](uint32_t id) { out.push_back(static_cast<int32_t>(id)); });
  if (options.add_bos) add(facts.after());
}

bool Tokenizer::Impl::needs_normalizing(std::string_view text) const {
  return facts.trim_spaces() || facts.mark_spaces_first() || facts.prefix() == fb::Prefix::always ||
         (facts.nfc() && nfc_quick_check(text) != text.size());
}

// Order as in the file formats: NFC, spaces, prefix.
void Tokenizer::Impl::normalize(std::pmr::string& text) const {
  if (facts.nfc() && nfc_quick_check(text) != text.size()) {
    std::pmr::string composed(text.get_allocator());
    append_nfc(text, composed);
    text = std::move(composed);
  }
  if (facts.trim_spaces()) collapse_spaces(text);
  if (facts.mark_spaces_first()) mark_to_space(text);
  if (facts.trim_spaces()) trim_end(text);
  if (facts.prefix() == fb::Prefix::always && !text.empty()) text.insert(text.begin(), ' ');
}

void Tokenizer::Impl::encode_stretch(std::string_view text, bool begins, Call& call) const {
  std::pmr::string changed(call.memory());
  if (needs_normalizing(text)) {
    changed = text;
    normalize(changed);
    text = changed;
  }
  if (normalized.empty()) {
    if (!text.empty()) encode_plain(text, begins, call);
    return;
  }
  const auto honours = [&](size_t, size_t) { return call.special; };
  normalized.split(text, honours, [&](std::string_view part, bool first) { encode_plain(part, begins && first, call); },
                   [&](uint32_t id) { call.out.push_back(static_cast<int32_t>(id)); });
}

void Tokenizer::Impl::encode_plain(std::string_view text, bool begins, Call& call) const {
  std::pmr::string changed(call.memory());
  const bool wants_prefix = facts.prefix() == fb::Prefix::unless_space || (facts.prefix() == fb::Prefix::first_unless_space && begins);
  const bool marks = characters && !facts.mark_spaces_first() && text.find(space_mark) != text.npos;
  const bool starts_with_space = text[0] == ' ' || (characters && text.starts_with(space_mark));
  if (marks || (wants_prefix && !starts_with_space)) {
    if (wants_prefix && !starts_with_space) changed.push_back(' ');
    changed.append(text);
    if (marks) mark_to_space(changed);
    text = changed;
  }
  for_each_piece(std::span(splits.data(), n_splits), text, call.memory(), [&](std::string_view piece) { bpe.encode(piece, call.scratch, call.out); });
}

Tokenizer::Tokenizer(std::span<const std::byte> blob, uint32_t n_vocab, std::pmr::memory_resource* memory)
    : impl_(std::pmr::polymorphic_allocator<>(memory).new_object<Impl>(blob, n_vocab, memory)) {}

Tokenizer::~Tokenizer() { std::pmr::polymorphic_allocator<>(impl_->memory).delete_object(impl_); }

void Tokenizer::encode(std::string_view text, EncodeOptions options, std::pmr::vector<int32_t>& out) const {
  impl_->encode(text, options, out);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id >= 0 && static_cast<uint32_t>(id) < impl_->file.n_tokens() ? impl_->file.text(static_cast<uint32_t>(id)) : std::string_view();
}

uint32_t Tokenizer::attributes(int32_t id) const {
  constexpr uint32_t shown = GPTQ_TOKEN_SPECIAL | GPTQ_TOKEN_BYTE | GPTQ_TOKEN_ADDED;
  return id >= 0 && static_cast<uint32_t>(id) < impl_->file.n_tokens() ? impl_->file.flags(static_cast<uint32_t>(id)) & shown : 0;
}

bool Tokenizer::strips_leading_space() const { return impl_->facts.strips_leading_space(); }
int32_t Tokenizer::bos() const { return impl_->facts.bos(); }
int32_t Tokenizer::eos() const { return impl_->facts.eos(); }

void encode_enough(const Tokenizer& tokenizer, std::string_view text, size_t wanted, std::pmr::vector<int32_t>& out) {
  constexpr size_t piece = 1 << 20;
  while (!text.empty() && out.size() < wanted) {
    size_t n = std::min(text.size(), piece);
    if (n < text.size())
      if (const size_t line = text.rfind('\n', n - 1); line != text.npos) n = line + 1;
    tokenizer.encode(text.substr(0, n), {}, out);
    text.remove_prefix(n);
  }
}

}  // namespace gptq::text
