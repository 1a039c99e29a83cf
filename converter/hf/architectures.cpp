// SPDX-License-Identifier: Apache-2.0
// One entry per family. To add one: its entry here, a checkpoint in the golden tests.
#include "converter/hf/config.h"

#include "base/failure.h"

namespace gptq::convert {

const std::vector<Architecture>& architectures() {
  using Biases = Architecture::Biases;
  using Window = Architecture::Window;
  static const std::vector<Architecture> table{
      {"LlamaForCausalLM", "Llama 1 to 3, Yi, TinyLlama, SmolLM", Biases::as_config, Window::none, false, 0, 0, 2048},
      {"MistralForCausalLM", "Mistral", Biases::none, Window::every_layer, false, 0, 8, 131072},
      {"Qwen2ForCausalLM", "Qwen 1.5 to 2.5", Biases::qkv, Window::listed, false, 0, 32, 32768},
      {"Qwen3ForCausalLM", "Qwen 3", Biases::as_config, Window::listed, true, 128, 32, 32768},
  };
  return table;
}

const Architecture& find_architecture(const JsonObject& config) {
  const auto names = config.array("architectures");
  std::string_view name;
  if (!names || names->size() == 0 || names->at(0).get_string().get(name)) config.refuse("architectures", "must name the model's class");
  std::string known;
  for (const Architecture& a : architectures()) {
    if (a.name == name) return a;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  base::fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': architecture '", name, "' is not supported; these are: ", known);
}

}  // namespace gptq::convert
