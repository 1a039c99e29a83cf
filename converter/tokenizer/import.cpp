// SPDX-License-Identifier: Apache-2.0
// The tokenizer files of a Hugging Face folder, and what tokenizer_config.json says on top of them.
#include "converter/tokenizer/import.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <unordered_set>
#include <vector>

#include "base/failure.h"
#include "converter/json_writer.h"
#include "converter/tokenizer/pieces.h"
#include "converter/tokenizer/tiktoken.h"
#include "converter/tokenizer/tokenizer_json.h"
#include "converter/tokenizer/tokenizer_model.h"

namespace gptq::convert {
namespace {

namespace fs = std::filesystem;

bool is_there(const fs::path& path) { return file_exists(path.string()); }

class Config {
 public:
  explicit Config(const fs::path& folder) {
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
      if (is_there(folder / name)) files_.emplace_back(new JsonDocument(read_json((folder / name).string(), name)));  // it cannot move
  }
  // From the first file that has it.
  std::optional<Json> find(std::string_view name) const {
    for (const auto& file : files_)
      if (const auto value = field(file->root().fields(), name)) return value;
    return {};
  }
  std::optional<bool> flag(std::string_view name) const {
    const auto value = find(name);
    bool result;
    if (!value || value->get(result)) return {};
    return result;
  }
  // "..." or {"content": "..."}
  std::string token(std::string_view name) const {
    const auto value = find(name);
    if (!value) return {};
    return std::string(value->is_object() ? string_field(*value, "content") : as_string(*value, name));
  }
  // All that have a name, and additional_special_tokens.
  std::vector<std::string> special_tokens() const {
    std::vector<std::string> out;
    for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"})
      if (const auto value = find(name); value && !value->is_bool()) out.push_back(token(name));
    if (const auto list = find("additional_special_tokens"); list && list->is_array())
      for (const Json item : as_array(*list, "additional_special_tokens"))
        out.emplace_back(item.is_object() ? string_field(item, "content") : as_string(item, "additional_special_tokens"));
    return out;
  }

 private:
  std::vector<std::unique_ptr<JsonDocument>> files_;
};

using Ids = std::unordered_set<uint32_t>;

Ids ids_of(const std::vector<TokenizerDescription::Added>& list) {
  Ids ids;
  for (const auto& added : list) ids.insert(added.id);
  return ids;
}

// Tokens that only tokenizer_config.json knows.
void add_missing(const Config& config, TokenizerDescription& out) {
  const auto list = config.find("added_tokens_decoder");
  if (!list) return;
  const auto entries = as_object(*list, "added_tokens_decoder");
  out.ids_max += entries.size();
  Ids added = ids_of(out.added);
  for (const auto [key, entry] : entries) {
    uint32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id >= 1u << 20)
      base::fail(GPTQ_E_FORMAT, "tokenizer_config.json: added_tokens_decoder has the id \"", key, "\"");
    if (added.insert(id).second) add_token(entry, id, out);
  }
}

// Added tokens first: a token may share its text with another of the vocabulary.
int32_t find_token(const TokenizerDescription& t, std::string_view text) {
  for (const auto& added : t.added)
    if (added.text == text) return static_cast<int32_t>(added.id);
  for (size_t id = 0; id < t.tokens.size(); ++id)
    if (t.tokens[id].text == text) return static_cast<int32_t>(id);
  return -1;
}

void name_token(const Config& config, std::string_view name, const TokenizerDescription& t, NamedToken& out) {
  const std::string text = config.token(name);
  if (!text.empty()) out = {find_token(t, text), text};
}

// What the config says explicitly overrides what a tokenizer.model says.
void apply_flag(std::optional<bool> flag, const NamedToken& token, std::vector<uint32_t>& side) {
  if (!flag) return;
  side.clear();
  if (*flag && token.id >= 0) side.push_back(static_cast<uint32_t>(token.id));
}

void add_as(const std::string& text, uint32_t id, bool special, Ids& added, TokenizerDescription& out) {
  if (text.empty() || !added.insert(id).second) return;
  TokenizerDescription::Token& token = token_at(out, id);
  if (!token.symbol && !token.byte) token.text = out.alphabet == text::fb::Alphabet::characters ? without_marks(text) : text;
  token.special |= special;
  out.added.push_back({id, text, false, false, !special});
}

// added_tokens.json: an object of texts and their ids. Those that the config names are special.
void add_listed(const fs::path& folder, const Config& config, TokenizerDescription& out) {
  if (!is_there(folder / "added_tokens.json")) return;
  const JsonDocument file = read_json((folder / "added_tokens.json").string(), "added_tokens.json");
  const std::vector<std::string> special = config.special_tokens();
  const auto fields = file.root().fields();
  out.ids_max += fields.size();
  Ids added = ids_of(out.added);
  for (const auto [text, id] : fields)
    add_as(std::string(text), as_id(id, text), std::find(special.begin(), special.end(), text) != special.end(), added, out);
}

// Tokens that the config names are found in texts, wherever they come from.
void add_named(const Config& config, TokenizerDescription& out) {
  Ids added = ids_of(out.added);
  for (const std::string& text : config.special_tokens())
    if (const int32_t id = find_token(out, text); id >= 0) add_as(text, static_cast<uint32_t>(id), true, added, out);
}

void name_tokens(const Config& config, TokenizerDescription& out) {
  add_missing(config, out);
  name_token(config, "bos_token", out, out.bos);
  name_token(config, "eos_token", out, out.eos);
  name_token(config, "pad_token", out, out.pad);
  name_token(config, "unk_token", out, out.unk);
}

void apply_flags(const Config& config, TokenizerDescription& out) {
  apply_flag(config.flag("add_bos_token"), out.bos, out.before);
  apply_flag(config.flag("add_eos_token"), out.eos, out.after);
}

constexpr const char* gpt2_steps =
    R"("normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
constexpr const char* qwen2_steps =
    R"("normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [)"
    R"({"type": "Split", "pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|)"
    R"(\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},)"
    R"( "behavior": "Isolated", "invert": false}, {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]})";

// vocab.json and merges.txt, put together as the tokenizer.json that Hugging Face makes of them.
TokenizerDescription from_vocabulary(const fs::path& folder, const Config& config) {
  const std::string merges = read_text((folder / "merges.txt").string(), 64u << 20);
  std::string list;
  for (size_t at = 0; at < merges.size();) {
    const size_t end = std::min(merges.find('\n', at), merges.size());
    std::string line = merges.substr(at, end - at);
    if (line.ends_with('\r')) line.pop_back();
    const bool is_version = at == 0 && line.starts_with("#version");
    if (!line.empty() && !is_version) list += (list.empty() ? "" : ",") + json_quoted(line);
    at = end + 1;
  }
  const std::string kind = config.token("tokenizer_class");
  const bool prefix = config.flag("add_prefix_space").value_or(false);
  std::string steps = kind.starts_with("Qwen2") ? qwen2_steps : gpt2_steps;
  if (const size_t at = steps.rfind("\"add_prefix_space\": false"); prefix) steps.replace(at, 25, "\"add_prefix_space\": true");
  const std::string vocabulary = read_text((folder / "vocab.json").string(), 64u << 20);
  const JsonDocument document("vocab.json and merges.txt", "{" + steps + R"(, "decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", )" +
                                                               R"("vocab": )" + vocabulary + R"(, "merges": [)" + list + "]}}");
  return from_tokenizer_json(document.root().fields());
}

std::optional<fs::path> tiktoken_file(const fs::path& folder) {
  for (const char* name : {"qwen.tiktoken", "tiktoken.model", "vocab.tiktoken"})
    if (is_there(folder / name)) return folder / name;
  return {};
}

TokenizerDescription from_model_file(const fs::path& folder, const Config& config) {
  const std::string bytes = read_text((folder / "tokenizer.model").string(), 64u << 20);
  if (is_tiktoken(bytes)) return from_tiktoken(bytes, config.token("tokenizer_class"));
  const bool legacy = config.flag("legacy").value_or(true), add_prefix_space = config.flag("add_prefix_space").value_or(true);
  return from_tokenizer_model(bytes, legacy, add_prefix_space);
}

}  // namespace

std::optional<TokenizerDescription> import_tokenizer(const fs::path& folder) {
  const Config config(folder);
  TokenizerDescription out;
  if (is_there(folder / "tokenizer.json")) {
    out = from_tokenizer_json(read_json((folder / "tokenizer.json").string(), "tokenizer.json").root().fields());
    name_tokens(config, out);
    return out;  // what its post-processor adds around a text counts, whatever add_bos_token says: so does Hugging Face
  }
  const std::optional<fs::path> ranks = tiktoken_file(folder);
  if (is_there(folder / "tekken.json")) out = from_tekken(read_json((folder / "tekken.json").string(), "tekken.json").root().fields());
  else if (is_there(folder / "tokenizer.model")) out = from_model_file(folder, config);
  else if (ranks) out = from_tiktoken(read_text(ranks->string(), 64u << 20), ranks->filename() == "qwen.tiktoken" ? "QWen" : "TikToken");
  else if (is_there(folder / "vocab.json") && is_there(folder / "merges.txt")) out = from_vocabulary(folder, config);
  else return {};
  add_listed(folder, config, out);
  name_tokens(config, out);
  add_named(config, out);
  name_tokens(config, out);
  apply_flags(config, out);
  return out;
}

}  // namespace gptq::convert
