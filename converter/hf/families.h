// SPDX-License-Identifier: Apache-2.0
// One entry a family: what its configs are called, where its checkpoints have the weights, and how the config fills the spec.
#pragma once
#include <string_view>
#include <vector>

#include "converter/hf/layout.h"
#include "converter/json.h"

namespace gptq::convert {

struct Family {
  std::string_view model_type;
  std::vector<std::string_view> classes;  // as in config.json "architectures"
  std::string_view name;                  // for people
  void (*read)(const JsonObject& config, format::fb::SpecT& spec, Layout& layout);
};
const std::vector<Family>& families();
// The first class in "architectures", a list or one name; "": none.
std::string_view class_of(const JsonObject& config);
// Whether a config's class is this one, perhaps in another spelling ("LLaMAForCausalLM").
bool same_class(std::string_view name, std::string_view known);
// Whether it is the body of this one alone, which has no head ("GPT2Model" of "GPT2LMHeadModel").
bool is_body_of(std::string_view name, std::string_view known);
// What a family's config class calls things that others call otherwise; "": it has no such key, and one that stands there says nothing.
struct FamilyKeys {
  std::string_view layers = "n_layer", width = "n_embd", heads = "n_head";  // beside num_hidden_layers, hidden_size, num_attention_heads
  std::string_view kv_heads = "num_key_value_heads", head_dim = "head_dim", eps = "rms_norm_eps", activation = "hidden_act";
  bool partial_rope = false;  // rotary embedding may be of a part of each head, by partial_rotary_factor or another key
  std::string_view rope_part = "";
};
FamilyKeys keys_of(std::string_view model_type);
// By the class, or where the config names none by model_type; NULL: none. Another class of a known model_type is another model.
const Family* find_family(const JsonObject& config);
// What a class says of itself, without what belongs to pictures.
JsonObject text_config(const JsonObject& config);
void read_family(const Family& family, const JsonObject& config, format::fb::SpecT& spec, Layout& layout);

// All of them and the Llama line as a table in Markdown, for --families and docs/families.md.
std::string family_table();

}  // namespace gptq::convert
