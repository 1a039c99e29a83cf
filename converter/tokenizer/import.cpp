// SPDX-License-Identifier: Apache-2.0
// The tokenizer files of a Hugging Face folder, and what tokenizer_config.json says on top of them.
#include "converter/tokenizer/import.h"

#include <charconv>
#include <memory>
#include <vector>

#include "base/failure.h"
#include "converter/tokenizer/tokenizer_json.h"
#include "converter/tokenizer/tokenizer_model.h"

namespace gptq::convert {
namespace {

namespace fs = std::filesystem;

class Config {
 public:
  explicit Config(const fs::path& folder) {
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
      if (fs::exists(folder / name)) files_.emplace_back(new JsonDocument(read_json((folder / name).string(), name)));  // it cannot move
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

 private:
  std::vector<std::unique_ptr<JsonDocument>> files_;
};

bool is_added(const TokenizerDescription& t, uint32_t id) {
  for (const auto& added : t.added)
    if (added.id == id) return true;
  return false;
}

// Tokens that only tokenizer_config.json knows.
void add_missing(const Config& config, TokenizerDescription& out) {
  const auto list = config.find("added_tokens_decoder");
  if (!list) return;
  for (const auto [key, entry] : as_object(*list, "added_tokens_decoder")) {
    uint32_t id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id >= 1u << 20)
      base::fail(GPTQ_E_FORMAT, "tokenizer_config.json: added_tokens_decoder has the id \"", key, "\"");
    if (!is_added(out, id)) add_token(entry, id, out);
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

// What the config says explicitly overrides the post-processor.
void apply_flag(std::optional<bool> flag, const NamedToken& token, std::vector<uint32_t>& side) {
  if (!flag) return;
  side.clear();
  if (*flag && token.id >= 0) side.push_back(static_cast<uint32_t>(token.id));
}

void apply_config(const Config& config, TokenizerDescription& out) {
  add_missing(config, out);
  name_token(config, "bos_token", out, out.bos);
  name_token(config, "eos_token", out, out.eos);
  name_token(config, "pad_token", out, out.pad);
  name_token(config, "unk_token", out, out.unk);
  apply_flag(config.flag("add_bos_token"), out.bos, out.before);
  apply_flag(config.flag("add_eos_token"), out.eos, out.after);
}

}  // namespace

std::optional<TokenizerDescription> import_tokenizer(const fs::path& folder) {
  const Config config(folder);
  std::optional<TokenizerDescription> out;
  if (fs::exists(folder / "tokenizer.json")) {
    out = from_tokenizer_json(read_json((folder / "tokenizer.json").string(), "tokenizer.json").root().fields());
  } else if (fs::exists(folder / "tokenizer.model")) {
    const bool legacy = config.flag("legacy").value_or(true), add_prefix_space = config.flag("add_prefix_space").value_or(true);
    out = from_tokenizer_model(read_text((folder / "tokenizer.model").string(), 64u << 20), legacy, add_prefix_space);
  } else {
    return {};
  }
  apply_config(config, *out);
  return out;
}

}  // namespace gptq::convert
