// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/config.h"

#include <cmath>

#include "base/checked.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;
[[noreturn]] void refuse_feature(const JsonObject& config, std::string_view key, base::Code code = {GPTQ_E_UNSUPPORTED, __builtin_FILE(), __builtin_LINE()}) {
  fail(code, "'", config.where(), "': '", key,
       "' asks for something that is not supported and would change the model's answers");
}

bool is_off(simdjson::dom::element value) {
  bool flag;
  double number;
  return (!value.get(flag) && !flag) || (!value.get(number) && number == 0);
}

// Settings of other families that a config of a supported class may carry. They may be absent or say "no effect".
void refuse_unsupported(const JsonObject& config) {
  for (std::string_view key : {"attn_logit_softcapping",
                               "final_logit_softcapping",
                               "logit_softcapping",
                               "num_local_experts",
                               "num_experts",
                               "n_routed_experts",
                               "moe_intermediate_size",
                               "qk_layernorm",
                               "use_qk_norm",
                               "clip_qkv",
                               "attention_sink",
                               "alibi",
                               "use_parallel_residual",
                               "parallel_attn",
                               "no_rope_layers",
                               "rope_interleaved",
                               "rope_interleave",
                               "attn_temperature_tuning",
                               "use_bidirectional_attention",
                               "attention_chunk_size",
                               "add_cross_attention",
                               "is_encoder_decoder"})
    if (const auto value = config.find(key); value && !is_off(*value)) refuse_feature(config, key);
  for (std::string_view key : {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling", "logit_scale",
                               "scale_emb", "scale_depth", "lm_head_multiplier"})
    if (config.number(key, 1) != 1) refuse_feature(config, key);
  if (!config.boolean("is_causal", true)) refuse_feature(config, "is_causal");
  for (std::string_view key : {"hidden_act", "hidden_activation"})
    if (const auto act = config.string(key); act && *act != "silu" && *act != "swish")
      fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': ", key, " '", *act, "' is not supported, only silu is");
}

// Which layers use the window, from layer_types or from max_window_layers on.
std::vector<uint8_t> listed_windows(const JsonObject& config, uint32_t n_layers) {
  std::vector<uint8_t> out;
  const auto types = config.array("layer_types");
  if (!types) {
    const int64_t first = config.integer("max_window_layers").value_or(28);
    for (uint32_t i = 0; i < n_layers; ++i) out.push_back(int64_t{i} >= first);
    return out;
  }
  if (types->size() != n_layers) config.refuse("layer_types", "must have one entry per layer");
  for (const auto type : *types) {
    std::string_view name;
    if (type.get_string().get(name) || (name != "full_attention" && name != "sliding_attention"))
      fail(GPTQ_E_UNSUPPORTED, "'", config.where(), "': layer_types may hold full_attention and sliding_attention alone, not '", name, "'");
    out.push_back(name == "sliding_attention");
  }
  return out;
}

void refuse_layer_types(const JsonObject& config) {
  const auto types = config.array("layer_types");
  if (!types) return;
  for (const auto type : *types) {
    std::string_view name;
    if (type.get_string().get(name) || name != "full_attention") refuse_feature(config, "layer_types");
  }
}

void read_window(const JsonObject& config, const Architecture& architecture, format::fb::SpecT& spec) {
  using Window = Architecture::Window;
  if (architecture.window != Window::listed) refuse_layer_types(config);
  if (architecture.window == Window::none) return;
  if (architecture.window == Window::listed && !config.boolean("use_sliding_window", false)) return;
  simdjson::dom::element said;
  if (!config.fields().at_key("sliding_window").get(said) && said.is_null()) return;
  spec.window = config.count("sliding_window", 4096);
  if (architecture.window == Window::listed) spec.windowed_layers = listed_windows(config, spec.n_layers);
}

// The class's default holds where the key is absent; null means as many as heads.
uint32_t default_kv_heads(const JsonObject& config, const Architecture& architecture, uint32_t n_heads) {
  const bool null = !config.fields().at_key("num_key_value_heads").error();
  return null || architecture.kv_heads == 0 ? n_heads : architecture.kv_heads;
}

}  // namespace

bool HfModel::has_bias(std::string_view module) const {
  if (family) return false;
  const bool qkv = module.ends_with(".q_proj") || module.ends_with(".k_proj") || module.ends_with(".v_proj");
  if (qkv || module.ends_with(".o_proj")) return attention_bias && (qkv || architecture->biases == Architecture::Biases::as_config);
  return mlp_bias && module.find(".mlp.") != module.npos;
}

void check_sizes(std::string_view where, const format::fb::SpecT& s) {
  const auto check = [&](std::string_view what, uint32_t value, uint32_t most) {
    if (value > most) fail(GPTQ_E_FORMAT, "'", where, "': ", what, " = ", value, " is more than the ", most, " that are supported");
  };
  check("num_hidden_layers", s.n_layers, 1024);
  check("hidden_size", s.n_embd, 1u << 16);
  check("intermediate_size", s.n_ff, 1u << 18);
  check("num_attention_heads", s.n_heads, 1024);
  check("head_dim", s.head_dim, 512);
  if (s.experts) check("num_experts", s.experts->n, 4096), check("moe_intermediate_size", s.experts->n_ff, 1u << 17);
  if (s.latent) check("qk_nope_head_dim, qk_rope_head_dim or v_head_dim", std::max({s.latent->d_nope, s.latent->d_rope, s.latent->d_v}), 512);
  if (s.delta) check("linear_num_key_heads or linear_num_value_heads", std::max(s.delta->n_k, s.delta->n_v), 1024);
  if (s.delta) check("linear_key_head_dim or linear_value_head_dim", std::max(s.delta->d_k, s.delta->d_v), 512);
}

HfModel read_config(const JsonObject& config) {
  HfModel out;
  out.architecture = find_architecture(config);
  if (!out.architecture) {
    out.family = find_family(config);
    if (!out.family) refuse_architecture(config);
    read_family(*out.family, config, out.spec, out.layout);
    return out;
  }
  const Architecture& architecture = *out.architecture;
  refuse_unsupported(config);
  format::fb::SpecT& spec = out.spec;
  spec.n_vocab = config.count("vocab_size");
  spec.n_layers = config.count("num_hidden_layers");
  check_sizes(config.where(), spec);
  spec.n_embd = config.count("hidden_size");
  spec.n_ff = config.count("intermediate_size");
  spec.n_heads = config.count("num_attention_heads");
  spec.n_kv_heads = config.count("num_key_value_heads", default_kv_heads(config, architecture, spec.n_heads));
  spec.head_dim = config.count("head_dim", architecture.head_dim ? architecture.head_dim : std::max(1u, spec.n_embd / spec.n_heads));
  check_sizes(config.where(), spec);
  spec.n_ctx_train = config.count("max_position_embeddings", architecture.max_positions);
  spec.norm_eps = static_cast<float>(config.number("rms_norm_eps", 1e-6));
  spec.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(spec.head_dim)));
  spec.tied_head = config.boolean("tie_word_embeddings", false);
  spec.qk_norm = architecture.qk_norm;
  spec.rope = std::make_unique<format::fb::RopeT>(read_rope(config, spec.head_dim, spec.n_ctx_train));
  if (spec.rope->dynamic_factor > 0)
    spec.n_ctx_train = static_cast<uint32_t>(std::min(double(model::n_ctx_max), spec.n_ctx_train * double(spec.rope->dynamic_factor)));
  read_window(config, architecture, spec);
  const bool as_config = architecture.biases == Architecture::Biases::as_config;
  out.attention_bias = as_config ? config.boolean("attention_bias", false) : architecture.biases == Architecture::Biases::qkv;
  out.mlp_bias = as_config && config.boolean("mlp_bias", false);
  return out;
}

std::string kept_config(const JsonObject& config) {
  JsonWriter out;
  for (const auto field : config.fields())
    if (field.key != "quantization_config") out.add_raw(field.key, simdjson::minify(field.value));
  return out.object();
}

}  // namespace gptq::convert
