// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/metadata.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/checked.h"
#include "base/io.h"
#include "base/os.h"
#include "converter/system.h"
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

// A string, or a list of {name, template}, or an object of such pairs: named "" for the default one.
ChatTemplates templates_of(const JsonObject& object) {
  ChatTemplates out;
  const auto value = object.find("chat_template");
  if (!value) return out;
  const auto add = [&](std::string_view name, std::string_view text) { out.emplace_back(name == "default" ? "" : name, text); };
  simdjson::dom::array list;
  simdjson::dom::object pairs;
  if (!value->get(pairs)) {
    for (const auto [name, text] : pairs) {
      std::string_view content;
      if (text.get(content)) object.refuse("chat_template", "must hold strings");
      add(name, content);
    }
    return out;
  }
  if (value->get(list)) return {{"", std::string(*object.string("chat_template"))}};
  for (const auto item : list) {
    std::string_view name, text;
    if (item.at_key("name").get_string().get(name) || item.at_key("template").get_string().get(text))
      object.refuse("chat_template", "must hold objects with name and template");
    add(name, text);
  }
  return out;
}

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\"'"), last = text.find_last_not_of(" \t\r\"'");
  return first == text.npos ? std::string() : std::string(text.substr(first, last - first + 1));
}

// chat_template.jinja and the folder of further ones beside it.
ChatTemplates template_files(const std::string& folder) {
  ChatTemplates out;
  if (const std::string path = folder + "/chat_template.jinja"; file_exists(path)) out.emplace_back("", read_text(path, template_bytes_max));
  for (const char* name : {"additional_chat_templates", "chat_templates", "chat_template"}) {
    constexpr std::string_view ending = ".jinja";
    std::vector<std::string> files;
    if (const std::string path = folder + "/" + name; !base::os::list_folder(path, files) && errno != ENOENT && errno != ENOTDIR)
      base::fail_os(GPTQ_E_IO, errno, "cannot list the folder", path);
    std::sort(files.begin(), files.end());
    for (const std::string& file : files) {
      if (!file.ends_with(ending) || file == ending) continue;
      const std::string stem = file.substr(0, file.size() - ending.size());
      out.emplace_back(stem == "default" ? "" : stem, read_text(folder + "/" + name + "/" + file, template_bytes_max));
    }
  }
  return out;
}

}  // namespace

format::fb::GenerationT read_generation(const std::string& folder, const JsonObject& config, uint32_t n_vocab, const Options& options,
                                        EndTokens& ends) {
  format::fb::GenerationT out;
  const auto ids = [&](const JsonObject* first, std::string_view key) {
    std::vector<int32_t> found;
    if (first) found = token_ids(*first, key, n_vocab, options);
    return found.empty() ? token_ids(config, key, n_vocab, options) : found;
  };
  const auto fill = [&](const JsonObject* generation) {
    if (generation)
      for (const int32_t id : token_ids(*generation, "eos_token_id", n_vocab, options)) ends.add(id, "generation_config.json");
    for (const int32_t id : token_ids(config, "eos_token_id", n_vocab, options)) ends.add(id, "config.json");
    out.eos = first_or_none(ends.ids());
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

ChatTemplates read_chat_templates(const std::string& folder, const Options& options) {
  ChatTemplates all = template_files(folder);
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    const std::string path = folder + "/" + name;
    if (!all.empty() || !file_exists(path)) continue;
    all = templates_of(read_json(path, name).root());
  }
  ChatTemplates out;
  const auto known = [&](std::string_view name) { return std::any_of(out.begin(), out.end(), [&](const auto& t) { return t.first == name; }); };
  for (auto& [name, text] : all) {
    if (text.empty() || known(name)) continue;
    if (text.size() > template_bytes_max)
      base::fail(GPTQ_E_UNSUPPORTED, "the chat template ", name, " has ", text.size(), " bytes, at most ", template_bytes_max, " are supported");
    out.emplace_back(std::move(name), std::move(text));
  }
  if (out.size() == 1) out[0].first.clear();
  if (!out.empty() && !known("")) options.warn("no chat template is named 'default': one has to be asked for by its name");
  return out;
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
  const std::string full = base::os::full_path(folder);
  if (full.empty()) return folder;
  const std::filesystem::path path = system::path_of(full);
  // models--OWNER--NAME/snapshots/COMMIT of the hub's cache.
  const std::string model = path.parent_path().parent_path().filename().string();
  if (path.parent_path().filename() == "snapshots" && model.starts_with("models--")) return model.substr(model.rfind("--") + 2);
  return path.filename().string();
}

}  // namespace gptq::convert
