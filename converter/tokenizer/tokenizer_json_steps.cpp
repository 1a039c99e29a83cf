// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: what happens to a text before and after merging. A step that is not known by its exact form is refused by name.
#include "converter/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <iterator>

#include "base/failure.h"
#include "converter/tokenizer/patterns.h"
#include "converter/tokenizer/tokenizer_json_patterns.h"

namespace gptq::convert {
namespace {

using text::fb::Prefix;
using text::fb::Sight;
using text::fb::Split;

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.json: ", parts...);
}

// A step, or the steps of a "Sequence" under list, or of sequences in it.
template <class Use>
void for_each_step(std::optional<Json> step, std::string_view list, const Use& use, int depth = 0) {
  if (!step) return;
  if (string_field(*step, "type") != "Sequence") return use(*step);
  if (depth > 8) refuse("sequences of ", list, " nested deeper than 8");
  const auto steps = field(*step, list);
  if (!steps) return;
  for (const Json part : as_array(*steps, list)) for_each_step(std::optional<Json>(part), list, use, depth + 1);
}

std::string_view pattern_string(Json step) {
  const auto pattern = field(step, "pattern");
  return pattern ? string_field(*pattern, "String") : "";
}

bool replaces(Json step, std::string_view from, std::string_view to) {
  return string_field(step, "type") == "Replace" && pattern_string(step) == from && string_field(step, "content") == to;
}

// As tokenizer_json_writer.cpp says that spaces are trimmed.
bool is_trimming(Json step) {
  const auto pattern = field(step, "pattern");
  const std::string_view regex = pattern ? string_field(*pattern, "Regex") : "", content = string_field(step, "content");
  for (const auto& known : trimming_steps)
    if (string_field(step, "type") == "Replace" && known.regex == regex && known.content == content) return true;
  return false;
}

// Before a text, or before each piece of the steps that came before.
void add_space(TokenizerDescription& out) {
  if (out.splits.empty()) out.prefix = Prefix::unless_space;
  else out.splits.push_back(Split::space_first);
}

// The scanner for a step that sees characters.
std::optional<Split> known_split(Json step) {
  const std::string_view type = string_field(step, "type");
  if (type == "Digits") return bool_field(step, "individual_digits") ? Split::digits : Split::digit_runs;
  if (type != "Split") return {};
  const auto pattern = field(step, "pattern");
  // Every known pattern matches all of a text, so these two mean the same.
  const std::string_view behavior = string_field(step, "behavior"), regex = pattern ? string_field(*pattern, "Regex") : "";
  const bool invert = bool_field(step, "invert");
  if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) return {};
  for (const SplitPattern& known : split_patterns)
    if (known.regex == regex) return known.split;
  return {};
}

void read_split(Json step, Sight sight, TokenizerDescription& out) {
  const std::optional<Split> known = sight == Sight::characters ? known_split(step) : std::nullopt;
  out.splits.push_back(known.value_or(Split::pattern));
  if (!known) out.patterns.push_back({simdjson::minify(step), sight});
}

void read_metaspace(Json step, TokenizerDescription& out) {
  if (string_field(step, "replacement") != mark) refuse("Metaspace with another mark than U+2581");
  const bool prefix = bool_field(step, "add_prefix_space", true);
  const std::string_view scheme = string_field(step, "prepend_scheme", prefix ? "always" : "never");
  if (scheme == "first" && !out.splits.empty()) refuse("Metaspace with prepend_scheme first behind another pre-tokenizer");
  if (scheme == "first") out.prefix = Prefix::first_unless_space;
  else if (scheme != "always" && scheme != "never") refuse("Metaspace with prepend_scheme ", scheme);
  else if (scheme == "always") add_space(out);
  if (bool_field(step, "split", true)) out.splits.push_back(Split::before_space);
  out.alphabet = text::fb::Alphabet::characters;
}

void read_byte_level(Json step, TokenizerDescription& out) {
  if (bool_field(step, "add_prefix_space", true)) add_space(out);
  if (bool_field(step, "use_regex", true)) out.splits.push_back(Split::gpt2);
}

// "content" of Strip: one space from the start, nothing from the end.
bool strips_one_space(Json step) {
  uint64_t start = 0, stop = 0;
  const auto from = field(step, "start"), to = field(step, "stop");
  return from && to && !from->get(start) && !to->get(stop) && start == 1 && stop == 0 && string_field(step, "content") == " ";
}

}  // namespace

void read_normalizer(JsonFields root, TokenizerDescription& out) {
  size_t trimming = 0;
  for_each_step(field(root, "normalizer"), "normalizers", [&](Json step) {
    const std::string_view type = string_field(step, "type");
    if (type == "NFC" && !out.mark_spaces_first && out.prefix == Prefix::none) {
      out.nfc = true;
    } else if (type == "Prepend" && string_field(step, "prepend") == mark) {
      out.prefix = Prefix::always;
    } else if (replaces(step, " ", mark)) {
      out.mark_spaces_first = true;
      out.alphabet = text::fb::Alphabet::characters;
    } else if (is_trimming(step)) {
      ++trimming;
    } else {
      refuse("normalizer ", type, " ", pattern_string(step));
    }
  });
  if (trimming && trimming != std::size(trimming_steps)) refuse("normalizer Replace by a part of the known regular expressions");
  out.trim_spaces = trimming > 0;
}

void read_pre_tokenizer(JsonFields root, TokenizerDescription& out) {
  bool byte_level = false, marked = out.mark_spaces_first;
  for_each_step(field(root, "pre_tokenizer"), "pretokenizers", [&](Json step) {
    const std::string_view type = string_field(step, "type");
    // Splitting at spaces is nothing where the normalizer has left none.
    if (type == "Split" && pattern_string(step) == " " && out.mark_spaces_first) return;
    if (type == "Metaspace" || type == "ByteLevel") {
      if (byte_level || (marked && type == "ByteLevel")) refuse("pre-tokenizer ", type, " after ByteLevel or Metaspace");
      if (type == "Metaspace") read_metaspace(step, out);
      else read_byte_level(step, out);
      byte_level = type == "ByteLevel";
      marked = !byte_level;
    } else {
      read_split(step, byte_level ? Sight::bytes : marked ? Sight::marks : Sight::characters, out);
    }
  });
  const bool characters = out.alphabet == text::fb::Alphabet::characters;
  if (byte_level == characters) refuse("neither ByteLevel nor U+2581 for spaces is what its steps say, or both");
  if (out.prefix == Prefix::always && !out.mark_spaces_first) refuse("normalizer Prepend without Replace");
  if (out.splits.size() > 8) refuse(out.splits.size(), " pre-tokenizers");
  compile_patterns(out.patterns);  // so that one that cannot be is refused here
  const auto needs_source = [](Split split) { return split == Split::pattern || split == Split::space_first; };
  if (std::any_of(out.splits.begin(), out.splits.end(), needs_source)) out.pre_tokenizer = simdjson::minify(*field(root, "pre_tokenizer"));
}

void read_decoder(JsonFields root, TokenizerDescription& out) {
  for_each_step(field(root, "decoder"), "decoders", [&](Json step) {
    const std::string_view type = string_field(step, "type");
    if (type == "Strip" && strips_one_space(step)) out.strips_leading_space = true;
    else if (type == "Metaspace") out.strips_leading_space = out.prefix != Prefix::none;
    else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse" && !replaces(step, mark, " ")) refuse("decoder ", type);
  });
}

void read_post_processor(JsonFields root, TokenizerDescription& out) {
  for_each_step(field(root, "post_processor"), "processors", [&](Json step) {
    const std::string_view type = string_field(step, "type");
    if (type == "ByteLevel") return;
    const auto single = field(step, "single");
    if (type != "TemplateProcessing" || !single) refuse("post-processor ", type);
    std::vector<uint32_t>* side = &out.before;
    for (const Json item : as_array(*single, "single")) {
      const auto special = field(item, "SpecialToken");
      if (!special) {
        side = &out.after;
        continue;
      }
      const std::string_view name = string_field(*special, "id");
      const auto ids = field(field(field(step, "special_tokens"), name), "ids");
      if (!ids) refuse("post-processor names ", name, " without its ids");
      for (const Json id : as_array(*ids, "ids")) side->push_back(as_id(id, name));
    }
  });
  for (const auto* side : {&out.before, &out.after})
    for (const uint32_t id : *side)
      if (id >= out.tokens.size()) refuse("post-processor names token ", id, " of ", out.tokens.size());
}

}  // namespace gptq::convert
