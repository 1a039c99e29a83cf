// SPDX-License-Identifier: Apache-2.0
// config.json of transformers 4 and 5 -> the model's spec. What would change results and is not supported is refused by name.
#pragma once
#include <vector>

#include "converter/hf/families.h"
#include "converter/json.h"
#include "converter/source.h"

namespace gptq::convert {

// What families differ in, beyond the names that all of them share.
struct Architecture {
  enum class Biases { as_config, none, qkv };  // as_config: attention_bias (q, k, v, o) and mlp_bias (gate, up, down)
  enum class Window { none, every_layer, listed };
  std::string_view name;      // as in config.json "architectures"
  std::string_view model_type;
  std::string_view families;  // for --help and error messages
  Biases biases;
  Window window;
  bool qk_norm;
  uint32_t head_dim;          // where the config has none; 0 = hidden_size / heads
  uint32_t kv_heads;          // where the config has none; 0 = as many as heads
  uint32_t max_positions;     // where the config has none
};
const std::vector<Architecture>& architectures();
// The architecture of the Llama line that a config names, or NULL.
const Architecture* find_architecture(const JsonObject& config);
[[noreturn]] void refuse_architecture(const JsonObject& config);

struct HfModel {
  format::fb::SpecT spec;
  Layout layout;
  const Architecture* architecture = nullptr;  // of the Llama line, or NULL
  const Family* family = nullptr;              // or one of the others
  bool attention_bias = false;  // o_proj too, unless the architecture says qkv
  bool mlp_bias = false;
  // Whether config.json says that "model.layers.3.self_attn.q_proj" has one.
  bool has_bias(std::string_view module) const;
};
HfModel read_config(const JsonObject& config);
// What a file keeps of it, for export to write again: of families whose config cannot be made from the spec.
std::string kept_config(const JsonObject& config);

// Sizes that lists are made of before the runtime's rules see them; fails with FORMAT above what it supports.
void check_sizes(std::string_view where, const format::fb::SpecT& spec);

// The rotary part alone. head_dim and max_positions are those of the model.
format::fb::RopeT read_rope(const JsonObject& config, uint32_t head_dim, uint32_t max_positions);
// Names the settings of other rope types, which are left out.
void warn_of_rope(const JsonObject& config, const Options& options);
// The scaling as a JSON object, so that a config.json can be written again; "" where there is none.
std::string rope_settings(const JsonObject& config);

}  // namespace gptq::convert
