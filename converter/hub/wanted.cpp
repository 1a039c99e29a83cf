// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/wanted.h"

#include <algorithm>

#include "converter/dialects/quant_config.h"
#include "converter/safetensors/files.h"

namespace gptq::convert::hub {
namespace {

constexpr std::string_view descriptions[] = {
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quant_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "chat_template.json",
    "chat_template.jinja",
    "modules.json",  // of sentence-transformers
    "1_Pooling/config.json",
    "README.md",  // its licence
};

bool is_template_of_folder(std::string_view file) {
  for (const std::string_view folder : {"additional_chat_templates/", "chat_templates/", "chat_template/"})
    if (file.starts_with(folder) && file.ends_with(".jinja")) {
      const std::string_view name = file.substr(folder.size());
      return name.size() <= 255 && name[0] != '.' && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
    }
  return false;
}

}  // namespace

bool is_description(std::string_view file) {
  if (std::find(std::begin(descriptions), std::end(descriptions), file) != std::end(descriptions)) return true;
  if (is_template_of_folder(file)) return true;
  const bool plain = !file.empty() && file.size() <= 255 && file[0] != '.' &&
                     file.find_first_of(std::string_view("/\\\0", 3)) == file.npos;
  return plain && (file.ends_with(".safetensors.index.json") || file.ends_with(".tiktoken"));
}

std::vector<std::string> weight_files(const std::string& folder, const std::vector<std::string>& names) {
  const JsonDocument config = JsonDocument::read(folder + "/config.json", "config.json", 16u << 20);
  const auto quant = read_quant_config(folder, config.root());
  FolderOptions options;
  if (quant) options.names = quant->file_names;
  std::vector<std::string> here;
  for (const std::string& name : names)
    if (name.find('\0') == name.npos) here.push_back(name);
  std::sort(here.begin(), here.end());
  return choose_files(folder, options, here).files;
}

}  // namespace gptq::convert::hub
