// SPDX-License-Identifier: Apache-2.0
// A description as tokenizer.json, in steps that tokenizer_json_steps.cpp and Hugging Face's tokenizers read alike.
#include <algorithm>
#include <unordered_map>

#include "base/failure.h"
#include "converter/json_writer.h"
#include "converter/tokenizer/byte_alphabet.h"
#include "converter/tokenizer/description.h"
#include "converter/tokenizer/tokenizer_json_patterns.h"
#include "text/utf8.h"

namespace gptq::convert {
namespace {

using base::fail;
using text::fb::Alphabet;
using text::fb::Prefix;
using text::fb::Split;
using Steps = std::vector<std::string>;

JsonWriter step(std::string_view type) { return JsonWriter().add("type", type); }

std::string replace(std::string_view kind, std::string_view pattern, std::string_view content) {
  return step("Replace").add_raw("pattern", JsonWriter().add(kind, pattern).object()).add("content", content).object();
}

// null, the only step, or a "Sequence" of them.
std::string sequence(const Steps& steps, std::string_view list) {
  if (steps.empty()) return "null";
  if (steps.size() == 1) return steps[0];
  return step("Sequence").add_raw(list, json_list(steps, [](const std::string& s) { return s; })).object();
}

std::string marked(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c == ' ') out += mark;
    else out += c;
  return out;
}

void check_steps(const TokenizerDescription& t) {
  const bool bytes = t.alphabet == Alphabet::bytes;
  const bool whole_prefix = t.prefix == Prefix::always || t.prefix == Prefix::first_unless_space;
  if (bytes && (t.trim_spaces || t.mark_spaces_first || whole_prefix || t.byte_fallback))
    fail(GPTQ_E_UNSUPPORTED, "the tokenizer is over bytes and has steps for characters, which tokenizer.json cannot say");
  if (bytes && t.prefix == Prefix::unless_space && t.splits != std::vector<Split>{Split::gpt2} && !t.splits.empty() &&
      t.pre_tokenizer.empty())
    fail(GPTQ_E_UNSUPPORTED, "the tokenizer puts a space before its texts and splits them first, which tokenizer.json cannot say");
}

std::string normalizer(const TokenizerDescription& t) {
  Steps steps;
  if (t.nfc) steps.push_back(step("NFC").object());
  if (t.trim_spaces)
    for (size_t i = 0; i < 2; ++i) steps.push_back(replace("Regex", trimming_steps[i].regex, trimming_steps[i].content));
  if (t.prefix == Prefix::always) steps.push_back(step("Prepend").add("prepend", mark).object());
  if (t.mark_spaces_first) steps.push_back(replace("String", " ", mark));
  if (t.trim_spaces) steps.push_back(replace("Regex", trimming_steps[2].regex, trimming_steps[2].content));
  return sequence(steps, "normalizers");
}

std::string split_step(Split split) {
  if (split == Split::digits || split == Split::digit_runs) return step("Digits").add("individual_digits", split == Split::digits).object();
  for (const SplitPattern& known : split_patterns)
    if (known.split == split)
      return step("Split")
          .add_raw("pattern", JsonWriter().add("Regex", known.regex).object())
          .add("behavior", "Isolated")
          .add("invert", false)
          .object();
  fail(GPTQ_E_UNSUPPORTED, "the tokenizer's split ", static_cast<int>(split), " has no form in tokenizer.json");
}

std::string metaspace(const TokenizerDescription& t, bool split) {
  const std::string_view scheme = t.prefix == Prefix::unless_space ? "always" : t.prefix == Prefix::first_unless_space ? "first" : "never";
  return step("Metaspace").add("replacement", mark).add("prepend_scheme", scheme).add("split", split).object();
}

std::string pre_tokenizer(const TokenizerDescription& t) {
  if (!t.pre_tokenizer.empty()) return t.pre_tokenizer;
  Steps steps;
  if (t.alphabet == Alphabet::characters) {
    const bool splits_at_spaces = std::find(t.splits.begin(), t.splits.end(), Split::before_space) != t.splits.end();
    const bool prefixes = t.prefix == Prefix::unless_space || t.prefix == Prefix::first_unless_space;
    // First, since Metaspace puts its space before each piece of the steps before it; for these splits their order does not matter.
    if (splits_at_spaces || prefixes || !t.mark_spaces_first) steps.push_back(metaspace(t, splits_at_spaces));
    for (const Split split : t.splits)
      if (split != Split::before_space) steps.push_back(split_step(split));
    return sequence(steps, "pretokenizers");
  }
  const bool ends_in_gpt2 = !t.splits.empty() && t.splits.back() == Split::gpt2;
  for (size_t i = 0; i + ends_in_gpt2 < t.splits.size(); ++i) steps.push_back(split_step(t.splits[i]));
  steps.push_back(step("ByteLevel")
                      .add("add_prefix_space", t.prefix == Prefix::unless_space)
                      .add("trim_offsets", true)
                      .add("use_regex", ends_in_gpt2)
                      .object());
  return sequence(steps, "pretokenizers");
}

std::string decoder(const TokenizerDescription& t) {
  if (t.alphabet == Alphabet::bytes)
    return step("ByteLevel").add("add_prefix_space", true).add("trim_offsets", true).add("use_regex", true).object();
  Steps steps{replace("String", mark, " ")};
  if (t.byte_fallback) steps.push_back(step("ByteFallback").object());
  steps.push_back(step("Fuse").object());
  if (t.strips_leading_space) steps.push_back(step("Strip").add("content", " ").add("start", 1).add("stop", 0).object());
  return sequence(steps, "decoders");
}

std::string post_processor(const TokenizerDescription& t) {
  if (t.before.empty() && t.after.empty()) return "null";
  Steps single, pair;
  JsonWriter special;
  std::vector<uint32_t> described;
  const auto add_special = [&](const std::vector<uint32_t>& ids, Steps& steps, int type_id) {
    for (const uint32_t id : ids) {
      const std::string name = token_key(t, id);
      steps.push_back(JsonWriter().add_raw("SpecialToken", JsonWriter().add("id", name).add("type_id", type_id).object()).object());
      if (std::find(described.begin(), described.end(), id) != described.end()) continue;
      described.push_back(id);
      special.add_raw(name, JsonWriter()
                                .add("id", name)
                                .add_raw("ids", "[" + std::to_string(id) + "]")
                                .add_raw("tokens", "[" + json_quoted(name) + "]")
                                .object());
    }
  };
  const auto add_text = [&](Steps& steps, const char* name, int type_id) {
    steps.push_back(JsonWriter().add_raw("Sequence", JsonWriter().add("id", name).add("type_id", type_id).object()).object());
  };
  for (int text = 0; text < 2; ++text)
    for (Steps* steps : {&single, &pair}) {
      if (text == 1 && steps == &single) continue;
      add_special(t.before, *steps, text);
      add_text(*steps, text ? "B" : "A", text);
      add_special(t.after, *steps, text);
    }
  const auto as_is = [](const std::string& s) { return s; };
  return step("TemplateProcessing")
      .add_raw("single", json_list(single, as_is))
      .add_raw("pair", json_list(pair, as_is))
      .add_raw("special_tokens", special.object())
      .object();
}

// Where the tokens begin that are in the list of added tokens alone. Hugging Face numbers those onwards from the vocabulary's size, so
// they must be the last, and the vocabulary before them without holes; else all tokens are in it.
size_t vocabulary_size(const TokenizerDescription& t) {
  std::vector<bool> added(t.tokens.size());
  for (const auto& token : t.added) added[token.id] = true;
  size_t end = t.tokens.size();
  while (end > 0 && added[end - 1] && !t.tokens[end - 1].symbol && !t.tokens[end - 1].byte) --end;
  for (uint32_t id = 0; id < end; ++id)
    if (token_key(t, id).empty()) return t.tokens.size();
  return end;
}

std::string model(const TokenizerDescription& t) {
  std::string merges = "[";
  std::vector<std::string> keys(t.tokens.size());
  std::unordered_map<std::string_view, uint32_t> ids;
  JsonWriter vocabulary;
  const size_t size = vocabulary_size(t);
  for (uint32_t id = 0; id < t.tokens.size(); ++id) {
    keys[id] = token_key(t, id);
    if (text::valid_prefix(keys[id]) != keys[id].size())
      fail(GPTQ_E_UNSUPPORTED, "token ", id, " is no text, which tokenizer.json cannot say");
    const auto [place, is_new] = ids.emplace(keys[id], id);
    if (keys[id].empty() || id >= size) continue;
    if (!is_new) fail(GPTQ_E_UNSUPPORTED, "tokens ", place->second, " and ", id, " have the same text, which tokenizer.json cannot say");
    vocabulary.add(keys[id], id);
  }
  for (const text::Merge& merge : t.merges)
    merges.append(merges.size() > 1 ? ",\n" : "").append(json_quoted(keys[merge.left] + " " + keys[merge.right]));
  JsonWriter out = step("BPE");
  out.add_raw("dropout", "null");
  out.add_raw("unk_token", t.unknown < 0 ? "null" : json_quoted(keys[static_cast<size_t>(t.unknown)]));
  out.add_raw("continuing_subword_prefix", "null").add_raw("end_of_word_suffix", "null");
  out.add("fuse_unk", t.fuse_unk).add("byte_fallback", t.byte_fallback).add("ignore_merges", t.ignore_merges);
  return out.add_raw("vocab", vocabulary.object()).add_raw("merges", merges + "]").object();
}

std::string added_tokens(const TokenizerDescription& t) {
  auto added = t.added;
  std::stable_sort(added.begin(), added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return json_list(added, [&](const TokenizerDescription::Added& token) {
    return JsonWriter()
        .add("id", token.id)
        .add("content", token.text)
        .add("single_word", false)
        .add("lstrip", token.lstrip)
        .add("rstrip", token.rstrip)
        .add("normalized", token.normalized)
        .add("special", t.tokens[token.id].special)
        .object();
  });
}

}  // namespace

std::string token_key(const TokenizerDescription& t, uint32_t id) {
  constexpr char digits[] = "0123456789ABCDEF";
  const TokenizerDescription::Token& token = t.tokens[id];
  if (token.symbol) return t.alphabet == Alphabet::bytes ? text_of_bytes(token.text) : marked(token.text);
  if (token.byte && token.text.size() == 1) {
    const auto byte = static_cast<unsigned char>(token.text[0]);
    return {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
  }
  for (const auto& added : t.added)
    if (added.id == id) return added.text;
  return token.text;
}

std::string write_tokenizer_json(const TokenizerDescription& t) {
  check_steps(t);
  return JsonWriter()
      .add("version", "1.0")
      .add_raw("truncation", "null")
      .add_raw("padding", "null")
      .add_raw("added_tokens", added_tokens(t))
      .add_raw("normalizer", normalizer(t))
      .add_raw("pre_tokenizer", pre_tokenizer(t))
      .add_raw("post_processor", post_processor(t))
      .add_raw("decoder", decoder(t))
      .add_raw("model", model(t))
      .object();
}

}  // namespace gptq::convert
