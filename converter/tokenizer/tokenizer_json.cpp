// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: vocabulary, merges and added tokens. Its steps are in tokenizer_json_steps.cpp.
#include "converter/tokenizer/tokenizer_json.h"

#include <algorithm>

#include "base/failure.h"
#include "converter/tokenizer/byte_alphabet.h"
#include "converter/tokenizer/pieces.h"

namespace gptq::convert {
namespace {

void check_model(Json model) {
  const std::string_view type = string_field(model, "type", "BPE");
  if (type != "BPE") base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.json: model type ", type, "; supported is BPE");
  for (const std::string_view name : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!string_field(model, name).empty()) base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.json: ", name, " \"", string_field(model, name), "\"");
  if (const auto dropout = field(model, "dropout"))
    if (double value; dropout->get(value) || value != 0) base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.json: dropout");
}

Json required(const std::optional<Json>& value, std::string_view name) {
  if (!value) base::fail(GPTQ_E_FORMAT, "tokenizer.json: ", name, " is missing");
  return *value;
}

std::string_view required_string(Json object, std::string_view name) {
  return as_string(required(field(object, name), name), name);
}

TokenIds read_vocabulary(Json model, TokenizerDescription& out) {
  TokenIds ids;
  for (const auto [text, value] : as_object(required(field(model, "vocab"), "vocab"), "vocab")) {
    const uint32_t id = as_id(value, text);
    if (!ids.emplace(text, id).second) base::fail(GPTQ_E_FORMAT, "tokenizer.json: token \"", text, "\" stands in the vocabulary twice");
    TokenizerDescription::Token& token = token_at(out, id);
    if (!token.text.empty()) base::fail(GPTQ_E_FORMAT, "tokenizer.json: two tokens have the id ", id);
    if (out.alphabet == text::fb::Alphabet::bytes) {
      const std::optional<std::string> bytes = bytes_of(text);
      token.text = bytes ? *bytes : std::string(text);
      token.symbol = bytes.has_value();
    } else {
      token = token_of_piece(text);
    }
  }
  return ids;
}

struct Pair {
  std::string_view left, right;
};

// "left right" or ["left", "right"].
Pair merge_parts(Json merge) {
  if (merge.is_array()) {
    const auto array = as_array(merge, "merge");
    Json left, right;
    if (array.size() != 2 || array.at(0).get(left) || array.at(1).get(right)) base::fail(GPTQ_E_FORMAT, "tokenizer.json: a merge has not two parts");
    return {as_string(left, "merge"), as_string(right, "merge")};
  }
  const std::string_view text = as_string(merge, "merge");
  const size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) base::fail(GPTQ_E_FORMAT, "tokenizer.json: merge \"", text, "\" has not two parts");
  return {text.substr(0, space), text.substr(space + 1)};
}

void read_merges(Json model, const TokenIds& ids, TokenizerDescription& out) {
  const auto id_of = [&](std::string_view text) {
    const auto found = ids.find(text);
    if (found == ids.end()) base::fail(GPTQ_E_FORMAT, "tokenizer.json: \"", text, "\" of a merge is not in the vocabulary");
    return found->second;
  };
  std::string both;
  for (const Json merge : as_array(required(field(model, "merges"), "merges"), "merges")) {
    const Pair parts = merge_parts(merge);
    both.assign(parts.left).append(parts.right);
    out.merges.push_back({id_of(parts.left), id_of(parts.right), id_of(both)});
  }
}

void read_unknown(Json model, const TokenIds& ids, TokenizerDescription& out) {
  const std::string_view unknown = string_field(model, "unk_token");
  if (unknown.empty()) return;
  const auto found = ids.find(unknown);
  if (found != ids.end()) out.unknown = static_cast<int32_t>(found->second);
}

// Hugging Face gives an added token the id that its text has in the vocabulary, whatever its entry says.
void read_added(JsonFields root, const TokenIds& ids, TokenizerDescription& out) {
  const auto list = field(root, "added_tokens");
  if (!list) return;
  for (const Json entry : as_array(*list, "added_tokens")) {
    const std::string_view text = required_string(entry, "content");
    const uint32_t stated = as_id(required(field(entry, "id"), "id"), text);
    const auto found = ids.find(text);
    const uint32_t id = found == ids.end() ? stated : found->second;
    if (id != stated && stated < out.tokens.size() && !out.tokens[stated].text.empty())
      base::fail(GPTQ_E_FORMAT, "tokenizer.json: added token \"", text, "\" has the ids ", stated, " and ", id);
    add_token(entry, id, out);
  }
}

}  // namespace

TokenizerDescription::Token& token_at(TokenizerDescription& out, uint32_t id) {
  if (id >= out.ids_max)
    base::fail(GPTQ_E_FORMAT, "tokenizer: a token has the id ", id, " in a file of ", out.ids_max - out.id_gap_max, " tokens; at most ", out.id_gap_max, " ids may have none");
  if (id >= out.tokens.size()) out.tokens.resize(id + 1);
  return out.tokens[id];
}

void add_token(Json entry, uint32_t id, TokenizerDescription& out) {
  const std::string_view text = required_string(entry, "content");
  if (text.empty()) return;
  if (bool_field(entry, "single_word")) base::fail(GPTQ_E_UNSUPPORTED, "tokenizer: added token \"", text, "\" is single_word");
  TokenizerDescription::Token& token = token_at(out, id);
  const bool marked = out.alphabet == text::fb::Alphabet::characters;
  if (!token.symbol) token.text = marked ? without_marks(text) : std::string(text);
  token.special = bool_field(entry, "special");
  const bool normalized = bool_field(entry, "normalized", !token.special);
  out.added.push_back({id, std::string(text), bool_field(entry, "lstrip"), bool_field(entry, "rstrip"), normalized});
}

TokenizerDescription from_tokenizer_json(JsonFields root) {
  TokenizerDescription out;
  const Json model = required(field(root, "model"), "model");
  if (const auto vocab = field(model, "vocab"); vocab && vocab->is_object()) out.ids_max += as_object(*vocab, "vocab").size();
  if (const auto added = field(root, "added_tokens")) out.ids_max += as_array(*added, "added_tokens").size();
  check_model(model);
  read_normalizer(root, out);
  read_pre_tokenizer(root, out);
  const TokenIds ids = read_vocabulary(model, out);
  read_merges(model, ids, out);
  read_unknown(model, ids, out);
  read_added(root, ids, out);
  out.byte_fallback = bool_field(model, "byte_fallback");
  out.fuse_unk = bool_field(model, "fuse_unk");
  out.ignore_merges = bool_field(model, "ignore_merges");
  read_decoder(root, out);
  read_post_processor(root, out);
  return out;
}

}  // namespace gptq::convert
