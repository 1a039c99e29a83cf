// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a GGUF file.
#include <algorithm>

#include "base/failure.h"
#include "converter/json_writer.h"
#include "converter/tokenizer/byte_alphabet.h"
#include "converter/tokenizer/import.h"
#include "converter/tokenizer/pieces.h"
#include "converter/tokenizer/tokenizer_json.h"

#include <unordered_map>

namespace gptq::convert {
namespace {

using text::fb::Prefix;
using text::fb::Split;

struct Kind {
  std::string_view pre;
  std::vector<Split> splits;
  bool nfc = false, ignore_merges = false, add_bos = false;
};

struct Listed {
  std::string_view pre;
  std::vector<std::string_view> regexes;  // a Split each, isolated
};

constexpr std::string_view cjk = "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+";
constexpr std::string_view words_and_signs =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
    R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view cased =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view cased_with_endings =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::vector<Listed>& listed() {
  static const std::vector<Listed> all{{"tekken", {cased}},
                                       {"gpt-4o", {cased_with_endings}},
                                       {"llama4", {cased_with_endings}},
                                       {"minimax-m2", {cased_with_endings}},
                                       {"deepseek-v3", {R"(\p{N}{1,3})", cjk, words_and_signs}},
                                       {"hunyuan-dense", {R"(\p{N}{1,3})", cjk, words_and_signs}},
                                       {"bloom", {" ?[^(\\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"}}};
  return all;
}

bool is_listed(std::string_view pre) {
  return pre == "falcon" || std::any_of(listed().begin(), listed().end(), [&](const Listed& known) { return known.pre == pre; });
}

// The steps of such a name, as tokenizer.json would have them.
std::string steps_of(std::string_view pre) {
  const auto split = [](std::string_view regex) {
    return JsonWriter()
        .add("type", "Split")
        .add_raw("pattern", JsonWriter().add("Regex", regex).object())
        .add("behavior", "Isolated")
        .add("invert", false)
        .object();
  };
  const auto bytes = [](bool regex) {
    return JsonWriter().add("type", "ByteLevel").add("add_prefix_space", false).add("use_regex", regex).object();
  };
  std::string list;
  if (pre == "falcon")
    list = R"({"type": "Punctuation", "behavior": "Contiguous"},)" + bytes(true) + R"(,{"type": "Digits", "individual_digits": false},)" +
           split("[0-9][0-9][0-9]");
  for (const Listed& known : listed())
    for (const std::string_view regex : known.regexes)
      if (known.pre == pre) list += split(regex) + ",";
  if (pre != "falcon") list += bytes(false);
  return R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" + list + "]}}";
}

Kind kind_of(std::string_view pre) {
  static const Kind kinds[] = {
      {"gpt-2", {Split::gpt2}},
      {"phi-2", {Split::gpt2}},
      {"olmo", {Split::gpt2}, true},
      {"smollm", {Split::digits, Split::gpt2}},
      {"starcoder", {Split::digits, Split::gpt2}},
      {"refact", {Split::digits, Split::gpt2}},
      {"command-r", {Split::digits, Split::gpt2}, true},
      {"qwen2", {Split::qwen2}, true},
      {"deepseek-r1-qwen", {Split::qwen2}, true, false, true},
      {"llama-bpe", {Split::llama3}, false, true, true},
      {"llama3", {Split::llama3}, false, true, true},
      {"llama-v3", {Split::llama3}, false, true, true},
      {"smaug-bpe", {Split::llama3}, false, false, true},
      {"mpt", {Split::gpt2}, true},
      {"exaone", {Split::digits, Split::gpt2}},
      {"exaone4", {Split::gpt2}},
      {"codeshell", {Split::digits, Split::gpt2}},
      {"minerva-7b", {Split::digits, Split::gpt2}},
      {"stablelm2", {Split::qwen2}},
      {"hunyuan", {Split::qwen2}},
      {"megrez", {Split::qwen2}},
      {"dbrx", {Split::llama3}},
      {"chatglm-bpe", {Split::llama3}},
      {"glm4", {Split::llama3}, false, true},
      {"falcon3", {Split::llama3}, false, true, true},
      {"pixtral", {Split::llama3}, false, true, true},
      {"lfm2", {Split::llama3}, false, true, true},
  };
  for (const Kind& kind : kinds)
    if (kind.pre == pre) return kind;
  if (is_listed(pre)) return {pre, {}, false, pre == "tekken", pre == "tekken" || pre.starts_with("deepseek")};
  base::fail(GPTQ_E_UNSUPPORTED, "GGUF: tokenizer.ggml.pre \"", pre, "\" is not known; convert from the model's Hugging Face folder instead");
}

int type_of(const GgufVocabulary& v, size_t id) { return v.token_types.empty() ? static_cast<int>(Piece::normal) : v.token_types[id]; }

void read_merges(const GgufVocabulary& v, TokenizerDescription& out) {
  std::unordered_map<std::string_view, uint32_t> ids;
  for (uint32_t id = 0; id < v.tokens.size(); ++id) ids.emplace(v.tokens[id], id);
  const auto id_of = [&](std::string_view text) {
    const auto found = ids.find(text);
    if (found == ids.end()) base::fail(GPTQ_E_FORMAT, "GGUF: \"", text, "\" of a merge is not in the vocabulary");
    return found->second;
  };
  std::string both;
  for (const std::string_view merge : v.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == merge.npos) base::fail(GPTQ_E_FORMAT, "GGUF: merge \"", merge, "\" has not two parts");
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    both.assign(left).append(right);
    out.merges.push_back({id_of(left), id_of(right), id_of(both)});
  }
}

TokenizerDescription byte_level(const GgufVocabulary& v, const Kind& kind) {
  TokenizerDescription out;
  for (uint32_t id = 0; id < v.tokens.size(); ++id) {
    const int type = type_of(v, id);
    const bool added = type == Piece::control || type == Piece::user_defined || type == Piece::unknown;
    const std::optional<std::string> bytes = added ? std::nullopt : bytes_of(v.tokens[id]);
    out.tokens.push_back({bytes ? *bytes : v.tokens[id], bytes.has_value(), false, added && type != Piece::user_defined});
    if (added && !v.tokens[id].empty()) out.added.push_back({id, v.tokens[id]});
  }
  out.splits = kind.splits;
  if (is_listed(kind.pre)) {
    const JsonDocument steps("GGUF", steps_of(kind.pre));
    read_pre_tokenizer(steps.root().fields(), out);
  }
  out.nfc = kind.nfc;
  out.ignore_merges = kind.ignore_merges;
  read_merges(v, out);
  return out;
}

TokenizerDescription sentence_piece(const GgufVocabulary& v) {
  std::vector<Piece> pieces;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    // Files differ in whether they give token 0, the unknown one, a type of its own.
    pieces.push_back({v.tokens[id], v.scores.empty() ? 0 : v.scores[id], type_of(v, id)});
    if (pieces[id].type < Piece::normal || pieces[id].type > Piece::byte) base::fail(GPTQ_E_FORMAT, "GGUF: token type ", pieces[id].type);
  }
  if (v.unk >= 0 && static_cast<size_t>(v.unk) < pieces.size()) pieces[static_cast<size_t>(v.unk)].type = Piece::unknown;
  TokenizerDescription out = from_pieces(pieces);
  out.mark_spaces_first = true;
  out.trim_spaces = v.remove_extra_whitespaces.value_or(false);
  if (v.add_space_prefix.value_or(true)) out.prefix = Prefix::always;
  out.strips_leading_space = out.prefix != Prefix::none;
  return out;
}

NamedToken named(const GgufVocabulary& v, int32_t id) {
  if (id < 0) return {};
  if (static_cast<size_t>(id) >= v.tokens.size()) base::fail(GPTQ_E_FORMAT, "GGUF: special token ", id, " of ", v.tokens.size());
  return {id, v.tokens[static_cast<size_t>(id)]};
}

}  // namespace

TokenizerDescription from_gguf_vocabulary(const GgufVocabulary& v) {
  const auto fits = [&](size_t n) { return n == 0 || n == v.tokens.size(); };
  if (v.tokens.empty() || v.tokens.size() > 1u << 20) base::fail(GPTQ_E_UNSUPPORTED, "GGUF: ", v.tokens.size(), " tokens");
  if (!fits(v.scores.size()) || !fits(v.token_types.size())) base::fail(GPTQ_E_FORMAT, "GGUF: as many scores and token types as tokens belong in the file");
  TokenizerDescription out;
  bool add_bos = true;
  if (v.model == "gpt2") {
    const Kind kind = kind_of(v.pre);
    out = byte_level(v, kind);
    add_bos = kind.add_bos;
  } else if (v.model == "llama") {
    out = sentence_piece(v);
  } else {
    base::fail(GPTQ_E_UNSUPPORTED, "GGUF: tokenizer.ggml.model \"", v.model, "\"; supported are gpt2 and llama");
  }
  out.bos = named(v, v.bos);
  out.eos = named(v, v.eos);
  out.unk = named(v, v.unk);
  out.pad = named(v, v.pad);
  if (v.add_bos.value_or(add_bos) && v.bos >= 0) out.before = {static_cast<uint32_t>(v.bos)};
  if (v.add_eos.value_or(false) && v.eos >= 0) out.after = {static_cast<uint32_t>(v.eos)};
  return out;
}

}  // namespace gptq::convert
