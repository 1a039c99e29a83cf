// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/metadata.h"

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "base/io.h"
#include "converter/tokenizer/json_fields.h"

namespace gptq::convert {
namespace {

constexpr uint64_t small_file_max = 1u << 20, front_matter_max = 64u << 10, template_bytes_max = 256u << 10;

// Token ids under a key: one number or a list.
std::vector<int32_t> token_ids(const JsonObject& object, std::string_view key, uint32_t n_vocab, const Options& options) {
  std::vector<int32_t> out;
  const auto add = [&](simdjson::dom::element value) {
    int64_t id;
    if (value.get_int64().get(id)) object.refuse(key, "must be a token id or a list of them");
    if (id >= 0 && id < n_vocab) out.push_back(static_cast<int32_t>(id));
    else options.warn(object.where() + ": " + std::string(key) + " " + std::to_string(id) + " is outside the vocabulary and left out");
  };
  const auto value = object.find(key);
  if (!value) return out;
  simdjson::dom::array list;
  if (value->get(list)) add(*value);
  else for (const auto item : list) add(item);
  return out;
}

int32_t first_or_none(const std::vector<int32_t>& ids) { return ids.empty() ? -1 : ids[0]; }

// A sampling field, 0 where it says nothing or something out of range.
float in_range(const JsonObject& object, std::string_view key, double lowest, double highest, const Options& options) {
  const double value = object.number(key, 0);
  if (value == 0 || (value >= lowest && value <= highest)) return static_cast<float>(value);
  options.warn(object.where() + ": " + std::string(key) + " is out of range and left out");
  return 0;
}

void read_sampling(const JsonObject& object, format::fb::GenerationT& out, const Options& options) {
  out.repeat_penalty = in_range(object, "repetition_penalty", 1e-3, 1e3, options);
  if (!object.boolean("do_sample", false)) return;
  out.temperature = in_range(object, "temperature", 1e-3, 100, options);
  if (out.temperature == 0) out.temperature = 1;  // transformers' own default when it samples
  out.top_k = static_cast<int32_t>(in_range(object, "top_k", 1, 1 << 20, options));
  out.top_p = in_range(object, "top_p", 1e-6, 1, options);
  out.min_p = in_range(object, "min_p", 1e-6, 1, options);
}

// A string, or a list of {name, template} of which the one named "default" counts.
std::string template_of(const JsonObject& object, const Options& options) {
  const auto value = object.find("chat_template");
  if (!value) return {};
  simdjson::dom::array list;
  if (value->get(list)) return std::string(*object.string("chat_template"));
  std::string only;
  for (const auto item : list) {
    std::string_view name, text;
    if (item.at_key("name").get_string().get(name) || item.at_key("template").get_string().get(text))
      object.refuse("chat_template", "must hold objects with name and template");
    if (name == "default") return std::string(text);
    only = text;
  }
  if (list.size() == 1) return only;
  options.warn(object.where() + ": no chat template is named 'default'; none is taken over");
  return {};
}

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\"'"), last = text.find_last_not_of(" \t\r\"'");
  return first == text.npos ? std::string() : std::string(text.substr(first, last - first + 1));
}

std::string any_template(const std::string& folder, const Options& options) {
  if (const std::string path = folder + "/chat_template.jinja"; file_exists(path)) return read_text(path, template_bytes_max);
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    const std::string path = folder + "/" + name;
    if (!file_exists(path)) continue;
    if (std::string text = template_of(read_json(path, name).root(), options); !text.empty()) return text;
  }
  return {};
}

}  // namespace

format::fb::GenerationT read_generation(const std::string& folder, const JsonObject& config, uint32_t n_vocab, const Options& options) {
  format::fb::GenerationT out;
  const auto ids = [&](const JsonObject* first, std::string_view key) {
    std::vector<int32_t> found;
    if (first) found = token_ids(*first, key, n_vocab, options);
    return found.empty() ? token_ids(config, key, n_vocab, options) : found;
  };
  const auto fill = [&](const JsonObject* generation) {
    out.end_tokens = ids(generation, "eos_token_id");
    out.eos = first_or_none(out.end_tokens);
    out.bos = first_or_none(ids(generation, "bos_token_id"));
    out.pad = first_or_none(ids(generation, "pad_token_id"));
    if (generation) read_sampling(*generation, out, options);
  };
  const std::string path = folder + "/generation_config.json";
  if (!file_exists(path)) {
    fill(nullptr);
    return out;
  }
  const JsonDocument file = JsonDocument::read(path, "generation_config.json", small_file_max);
  const JsonObject root = file.root();
  fill(&root);
  return out;
}

std::string read_chat_template(const std::string& folder, const Options& options) {
  std::string text = any_template(folder, options);
  if (text.size() <= template_bytes_max) return text;
  base::fail(GPTQ_E_UNSUPPORTED, "the chat template has ", text.size(), " bytes, at most ", template_bytes_max, " are supported");
}

std::string read_license(const std::string& folder) {
  const std::string path = folder + "/README.md";
  if (!file_exists(path)) return {};
  const base::FileSource file(path);
  std::string text(base::to_size(std::min(file.size(), front_matter_max)), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  if (!text.starts_with("---\n")) return {};
  const std::string_view front = std::string_view(text).substr(3, text.find("\n---", 3) - 3);
  const auto at = front.find("\nlicense:");
  return at == front.npos ? std::string() : trimmed(front.substr(at + 9, front.find('\n', at + 1) - at - 9));
}

std::string folder_name(const std::string& folder) {
  std::error_code error;
  const auto path = std::filesystem::canonical(folder, error);
  return error ? folder : path.filename().string();
}

}  // namespace gptq::convert
