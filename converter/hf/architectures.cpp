// SPDX-License-Identifier: Apache-2.0
// One entry per family. To add one: its entry here, a checkpoint in the golden tests.
#include "converter/hf/config.h"

#include "base/failure.h"

namespace gptq::convert {

const std::vector<Architecture>& architectures() {
  using Biases = Architecture::Biases;
  using Window = Architecture::Window;
  static const std::vector<Architecture> table{
      {"LlamaForCausalLM", "llama", "Llama 1 to 3, Yi, TinyLlama, SmolLM", Biases::as_config, Window::none, false, 0, 0, 2048},
      {"MistralForCausalLM", "mistral", "Mistral", Biases::none, Window::every_layer, false, 0, 8, 131072},
      {"Qwen2ForCausalLM", "qwen2", "Qwen 1.5 to 2.5", Biases::qkv, Window::listed, false, 0, 32, 32768},
      {"Qwen3ForCausalLM", "qwen3", "Qwen 3", Biases::as_config, Window::listed, true, 128, 32, 32768},
  };
  return table;
}

namespace {

// What a class's spellings have in common.
std::string plain(std::string_view name) {
  std::string out = lower(name);
  std::erase_if(out, [](char c) { return c == '_' || c == '-'; });
  return out;
}

}  // namespace

std::string_view class_of(const JsonObject& config) {
  const auto value = config.find("architectures");
  std::string_view name;
  simdjson::dom::array names;
  if (!value || !value->get(name)) return name;
  if (!value->get(names))
    for (const auto item : names)
      if (!item.get(name)) return name;
  return {};
}

bool same_class(std::string_view name, std::string_view known) { return plain(name) == plain(known); }

bool is_body_of(std::string_view name, std::string_view known) {
  for (const std::string_view ending : {"ForCausalLM", "LMHeadModel", "ForConditionalGeneration"})
    if (known.ends_with(ending)) {
      const std::string stem(known.substr(0, known.size() - ending.size()));
      return same_class(name, stem + "Model") || same_class(name, stem + "TextModel");
    }
  return false;
}

// Where the class is missing, model_type decides. Another class of that type is another model, even if its weights have the same names.
const Architecture* find_architecture(const JsonObject& config) {
  const std::string_view name = class_of(config), type = config.string("model_type").value_or("");
  for (const Architecture& a : architectures())
    if (a.name == name) return &a;
  if (find_family(config)) return nullptr;
  for (const Architecture& a : architectures())
    if (name.empty() ? a.model_type == type : same_class(name, a.name) || is_body_of(name, a.name)) return &a;
  return nullptr;
}

void refuse_architecture(const JsonObject& config) {
  const std::string_view name = class_of(config);
  if (name.empty() && !config.has("model_type")) config.refuse("architectures", "must name the model's class, or model_type its kind");
  std::string known;
  for (const Architecture& a : architectures()) known += (known.empty() ? "" : ", ") + std::string(a.name);
  for (const Family& family : families()) known += ", " + std::string(family.classes[0]);
  base::fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': architecture '", name.empty() ? config.string("model_type").value_or("") : name,
             "' is not supported; these are: ", known);
}

}  // namespace gptq::convert
