// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/names.h"

#include <span>

#include "base/failure.h"

namespace gptq::convert {
namespace {

struct Name {
  std::string_view slot, module;
};
constexpr Name model_names[] = {{"embed", "model.embed_tokens"}, {"final_norm", "model.norm"}, {"head", "lm_head"}};
constexpr Name layer_names[] = {
    {"attn_norm", "input_layernorm"}, {"mlp_norm", "post_attention_layernorm"},
    {"q", "self_attn.q_proj"}, {"k", "self_attn.k_proj"}, {"v", "self_attn.v_proj"}, {"o", "self_attn.o_proj"},
    {"q_norm", "self_attn.q_norm"}, {"k_norm", "self_attn.k_norm"},
    {"gate", "mlp.gate_proj"}, {"up", "mlp.up_proj"}, {"down", "mlp.down_proj"},
};

std::string_view translate(std::string_view name, std::span<const Name> table) {
  for (const Name& entry : table)
    if (entry.slot == name) return entry.module;
  base::fail(GPTQ_E_INTERNAL, "no name for the slot '", name, "'");
}

}  // namespace

std::string hf_module(std::string_view slot) {
  if (!slot.starts_with("layers.")) return std::string(translate(slot, model_names));
  const size_t dot = slot.find('.', 7);
  return "model." + std::string(slot.substr(0, dot + 1)) + std::string(translate(slot.substr(dot + 1), layer_names));
}

std::vector<std::string> hf_modules(uint32_t n_layers) {
  std::vector<std::string> out;
  for (const Name& name : model_names) out.emplace_back(name.module);
  for (uint32_t layer = 0; layer < n_layers; ++layer)
    for (const Name& name : layer_names) out.push_back("model.layers." + std::to_string(layer) + "." + std::string(name.module));
  return out;
}

}  // namespace gptq::convert
