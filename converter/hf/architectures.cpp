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

std::string_view class_of(const JsonObject& config) {
  const auto names = config.array("architectures");
  std::string_view name;
  if (!names || names->size() == 0 || names->at(0).get_string().get(name)) return {};
  return name;
}

}  // namespace

// Where the class is missing or spelled in another way, model_type decides.
const Architecture* find_architecture(const JsonObject& config) {
  const std::string_view name = class_of(config), type = config.string("model_type").value_or("");
  for (const Architecture& a : architectures())
    if (a.name == name) return &a;
  if (find_family(config)) return nullptr;
  for (const Architecture& a : architectures())
    if (a.model_type == type) return &a;
  return nullptr;
}

void refuse_architecture(const JsonObject& config) {
  const std::string_view name = class_of(config);
  if (name.empty() && !config.has("model_type")) config.refuse("architectures", "must name the model's class");
  std::string known;
  for (const Architecture& a : architectures()) known += (known.empty() ? "" : ", ") + std::string(a.name);
  for (const Family& family : families()) known += ", " + std::string(family.classes[0]);
  base::fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': architecture '", name.empty() ? config.string("model_type").value_or("") : name,
             "' is not supported; these are: ", known);
}

}  // namespace gptq::convert
