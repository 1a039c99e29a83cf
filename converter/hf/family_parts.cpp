// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "base/failure.h"
#include "converter/hf/family_parts.h"

namespace gptq::convert::family {

using base::fail;

std::optional<uint32_t> first_count(C c, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys)
    if (c.has(key)) return c.count(key);
  return {};
}

double first_number(C c, std::initializer_list<std::string_view> keys, double otherwise) {
  for (const std::string_view key : keys)
    if (const auto value = c.number(key)) return *value;
  return otherwise;
}
float f32(double value) { return static_cast<float>(value); }

// ---- lists of layers ----

std::vector<std::string_view> layer_types(C c, const SpecT& s) {
  std::vector<std::string_view> out;
  const auto types = c.array("layer_types");
  if (!types) return out;
  for (const auto type : *types) {
    std::string_view name;
    if (type.get_string().get(name)) c.refuse("layer_types", "must hold names");
    out.push_back(name);
  }
  if (out.size() != s.n_layers) c.refuse("layer_types", "must have one entry per layer");
  return out;
}

// Every n-th layer is full where the config has no list.
std::vector<uint8_t> sliding_layers(C c, const SpecT& s, uint32_t every) {
  std::vector<uint8_t> out;
  for (const std::string_view type : layer_types(c, s)) out.push_back(type == "sliding_attention");
  for (uint32_t i = 0; out.size() < s.n_layers; ++i) out.push_back(every && (i + 1) % every != 0);
  return out;
}

void use_windows(C c, SpecT& s, uint32_t every) {
  const auto window = c.boolean("use_sliding_window", true) ? c.integer("sliding_window") : std::nullopt;
  if (!window || *window <= 0) return;
  s.windowed_layers = sliding_layers(c, s, every);
  if (std::find(s.windowed_layers.begin(), s.windowed_layers.end(), 1) != s.windowed_layers.end()) s.window = c.count("sliding_window");
  else s.windowed_layers.clear();
}

void window_everywhere(C c, SpecT& s) {
  if (const auto window = c.integer("sliding_window"); window && *window > 0) s.window = c.count("sliding_window");
}

std::vector<uint8_t> number_list(C c, std::string_view key, const SpecT& s) {
  std::vector<uint8_t> out;
  const auto list = c.array(key);
  if (!list) return out;
  for (const auto item : *list) {
    int64_t value;
    bool flag;
    if (!item.get_bool().get(flag)) out.push_back(flag);
    else if (item.get_int64().get(value)) c.refuse(key, "must hold numbers");
    else out.push_back(value != 0);
  }
  if (out.size() != s.n_layers) c.refuse(key, "must have one entry per layer");
  return out;
}


void rope_only_where(SpecT& s, const std::vector<uint8_t>& used) {
  s.rope_of_layer.clear();
  for (uint32_t i = 0; i < s.n_layers; ++i) s.rope_of_layer.push_back(used[i] ? 0 : -1);
}

// ---- parts that several families share ----

void use_activation(C c, SpecT& s, std::string_view name) {
  struct Entry {
    std::string_view name;
    Activation activation;
  };
  constexpr Entry known[] = {{"silu", Activation::silu}, {"swish", Activation::silu}, {"gelu", Activation::gelu}, {"gelu_new", Activation::gelu_tanh},
                             {"gelu_pytorch_tanh", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh}, {"gelu_tanh", Activation::gelu_tanh},
                             {"relu", Activation::relu}, {"relu2", Activation::relu2}, {"xielu", Activation::xielu}};
  for (const Entry& entry : known)
    if (entry.name == name) {
      s.activation = u8(entry.activation);
      return;
    }
  fail(GPTQ_E_UNSUPPORTED, "'", c.where(), "': the activation '", name, "' is not supported");
}

void layer_norms(SpecT& s) { s.norm = u8(NormKind::layer); }
void ungated(C c, SpecT& s, std::string_view usual, std::string_view key) {
  s.ungated = true;
  use_activation(c, s, c.string(key).value_or(usual));
}
void parallel_one_norm(SpecT& s) {
  s.residual = u8(Residual::parallel);
  s.norms = Norms::attn | Norms::final;
}
void head_norms(SpecT& s, Span span, NormKind kind) {
  s.qk_norm = true;
  s.qk_norm_span = u8(span);
  s.qk_norm_kind = u8(kind);
}
void tied_by_default(C c, SpecT& s) { s.tied_head = c.boolean("tie_word_embeddings", true); }
void out_norms_alone(SpecT& s, Layout& l) {
  s.norms = Norms::attn_out | Norms::mlp_out | Norms::final;
  l[Role::attn_out_norm] = "post_attention_layernorm", l[Role::mlp_out_norm] = "post_feedforward_layernorm";
}
void gpt_names(Layout& l) {
  l.layer = "transformer.h.{}.";
  l[Role::embed] = "transformer.wte", l[Role::final_norm] = "transformer.ln_f", l[Role::attn_norm] = "ln_1", l[Role::mlp_norm] = "ln_2";
}
void w1_experts(Layout& l) {
  l.expert = "block_sparse_moe.experts.{}.";
  l[Role::expert_gate] = "w1", l[Role::expert_up] = "w3", l[Role::expert_down] = "w2";
  l[Role::router] = "block_sparse_moe.gate", l[Role::router_bias] = "block_sparse_moe.e_score_correction_bias";
}
void shared_names(Layout& l, const std::string& prefix) {
  l[Role::shared_gate] = prefix + "gate_proj", l[Role::shared_up] = prefix + "up_proj", l[Role::shared_down] = prefix + "down_proj";
}

format::fb::ExpertsT& mixture(C c, SpecT& s, std::initializer_list<std::string_view> n, std::initializer_list<std::string_view> active, Score score) {
  s.experts = std::make_unique<format::fb::ExpertsT>();
  format::fb::ExpertsT& e = *s.experts;
  e.n = first_count(c, n).value_or(0);
  if (!e.n) c.refuse(*n.begin(), "is missing");
  e.n_active = first_count(c, active).value_or(0);
  if (!e.n_active) c.refuse(*active.begin(), "is missing");
  e.n_ff = first_count(c, {"moe_intermediate_size", "expert_ffn_hidden_size"}).value_or(s.n_ff);
  e.score = u8(score);
  return e;
}

void qwen_layers(C c, SpecT& s) {
  std::vector<uint32_t> dense;
  if (const auto list = c.array("mlp_only_layers"))
    for (const auto item : *list) {
      uint64_t index;
      if (!item.get_uint64().get(index)) dense.push_back(static_cast<uint32_t>(index));
    }
  const uint32_t step = std::max(1u, c.count("decoder_sparse_step", 1));
  s.expert_layers = per_layer(s, [&](uint32_t i) { return std::find(dense.begin(), dense.end(), i) == dense.end() && (i + 1) % step == 0; });
}

void dense_first(C c, SpecT& s) {
  const uint32_t first = first_count(c, {"first_k_dense_replace"}).value_or(0);
  s.expert_layers = per_layer(s, [&](uint32_t i) { return i >= first; });
}

void deepseek_v3_route(C c, SpecT& s, Layout& l) {
  format::fb::ExpertsT& e = mixture(c, s, {"n_routed_experts", "num_local_experts"}, {"num_experts_per_tok"}, Score::sigmoid);
  e.groups = std::max(1u, c.count("n_group", 1)), e.groups_kept = std::max(1u, c.count("topk_group", 1));
  e.group_score = u8(GroupScore::two_largest);
  e.choice_bias = true;
  e.normalize = c.boolean("norm_topk_prob", true);
  e.epsilon = 1e-20f;
  e.scale = f32(c.number("routed_scaling_factor", 1));
  e.n_ff_shared = c.count("n_shared_experts", 0) * e.n_ff;
  shared_names(l, "mlp.shared_experts.");
}

void latent(C c, SpecT& s, Layout& l, bool pairs, bool scale_by_rope) {
  s.latent = std::make_unique<format::fb::LatentT>();
  format::fb::LatentT& m = *s.latent;
  m.kv_rank = c.count("kv_lora_rank"), m.q_rank = c.count("q_lora_rank", 0);
  m.d_nope = c.count("qk_nope_head_dim"), m.d_rope = c.count("qk_rope_head_dim"), m.d_v = c.count("v_head_dim");
  s.mixers.assign(s.n_layers, u8(Mixer::latent));
  s.head_dim = m.d_nope + m.d_rope;
  s.n_kv_heads = s.n_heads;
  l.rope_pairs = pairs;
  set_rope(c, s, {.section = {}, .theta = {}, .part = 1.0, .plain = false, .base = m.d_rope});
  double scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  if (const auto fields = rope_fields(c, ""); scale_by_rope && fields && fields->string("rope_type").value_or(fields->string("type").value_or("")) == "yarn") {
    const double all = fields->number("mscale_all_dim", 0), factor = fields->number("factor", 1);
    const double m_all = all != 0 && factor > 1 ? 0.1 * all * std::log(factor) + 1 : 1;
    scale *= m_all * m_all;
  }
  s.attention_scale = f32(scale);
}

void granite_scales(C c, SpecT& s) {
  s.embed_scale = f32(c.number("embedding_multiplier", 1));
  s.attention_scale = f32(c.number("attention_multiplier", 1));
  s.residual_scale = f32(c.number("residual_multiplier", 1));
  s.logit_scale = f32(1 / c.number("logits_scaling", 1));
}

void minicpm_scales(C c, SpecT& s) {
  s.embed_scale = f32(c.number("scale_emb", 1));
  s.residual_scale = f32(c.number("scale_depth", std::sqrt(double(s.n_layers))) / std::sqrt(double(s.n_layers)));
  if (c.has("dim_model_base")) s.logit_scale = f32(c.number("dim_model_base", 1) / s.n_embd);
}

void gemma(C c, SpecT& s, Layout& l) {
  use_activation(c, s, c.string("hidden_activation").value_or("gelu_pytorch_tanh"));
  s.embed_scale = f32(std::sqrt(double(s.n_embd)));
  if (!c.has("head_dim")) s.head_dim = 256;
  l.plus_one = true;
  tied_by_default(c, s);
}
void sandwich(C c, SpecT& s, Layout& l) {
  gemma(c, s, l);
  s.norms = 63 & ~u8(Norms::embed);
  l[Role::attn_out_norm] = "post_attention_layernorm", l[Role::mlp_norm] = "pre_feedforward_layernorm", l[Role::mlp_out_norm] = "post_feedforward_layernorm";
  s.attention_scale = f32(1 / std::sqrt(c.number("query_pre_attn_scalar", 256)));
}

void delta(C c, SpecT& s, Layout& l) {
  if (c.string("hidden_act").value_or("silu") != "silu") c.refuse("hidden_act", "must be silu with linear attention");
  s.delta = std::make_unique<format::fb::DeltaT>();
  s.delta->n_k = c.count("linear_num_key_heads"), s.delta->n_v = c.count("linear_num_value_heads");
  s.delta->d_k = c.count("linear_key_head_dim"), s.delta->d_v = c.count("linear_value_head_dim");
  s.delta->kernel = c.count("linear_conv_kernel_dim", 4);
  const auto types = layer_types(c, s);
  const uint32_t every = c.count("full_attention_interval", 4);
  for (uint32_t i = 0; i < s.n_layers; ++i) {
    const bool linear = types.empty() ? (i + 1) % every != 0 : types[i] == "linear_attention";
    s.mixers.push_back(u8(linear ? Mixer::delta : Mixer::attention));
  }
  s.attention_gate = true;
  head_norms(s, Span::head);
  l.plus_one = true;
  set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("partial_rotary_factor") || rope_fields(c, "") ? std::nullopt : std::optional(0.25)});
  l.delta_qkv = "linear_attn.in_proj_qkv";
}
void qwen_shared(C c, SpecT& s) {
  s.experts->n_ff_shared = c.count("shared_expert_intermediate_size", 0);
  s.experts->shared_gated = s.experts->n_ff_shared > 0;
}

void lfm2(C c, SpecT& s, Layout& l) {
  if (c.boolean("conv_bias", false)) c.refuse("conv_bias", "is not supported: convolutions have no bias");
  l[Role::final_norm] = "model.embedding_norm", l[Role::attn_norm] = "operator_norm", l[Role::mlp_norm] = "ffn_norm";
  l[Role::o] = "self_attn.out_proj", l[Role::q_norm] = "self_attn.q_layernorm", l[Role::k_norm] = "self_attn.k_layernorm";
  l[Role::gate] = "feed_forward.w1", l[Role::up] = "feed_forward.w3", l[Role::down] = "feed_forward.w2";
  l[Role::conv_in] = "conv.in_proj";
  head_norms(s, Span::head);
  tied_by_default(c, s);
  s.conv_kernel = c.count("conv_L_cache", 3);
  for (const std::string_view type : layer_types(c, s)) s.mixers.push_back(u8(type == "conv" ? Mixer::short_conv : Mixer::attention));
  if (s.mixers.empty()) {
    const auto full = c.array("full_attn_idxs");
    if (!full) c.refuse("layer_types", "is missing");
    s.mixers.assign(s.n_layers, u8(Mixer::short_conv));
    for (const auto item : *full) {
      uint64_t index;
      if (!item.get_uint64().get(index) && index < s.n_layers) s.mixers[index] = u8(Mixer::attention);
    }
  }
}

void falcon(C c, SpecT& s, Layout& l) {
  l = Layout();
  l.layer = "transformer.h.{}.";
  l[Role::embed] = "transformer.word_embeddings", l[Role::final_norm] = "transformer.ln_f";
  l.qkv = "self_attention.query_key_value", l[Role::o] = "self_attention.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
  layer_norms(s);
  ungated(c, s, "gelu", "activation");
  tied_by_default(c, s);
  const bool grouped = c.boolean("new_decoder_architecture", false), multi_query = c.boolean("multi_query", true);
  s.n_kv_heads = grouped ? first_count(c, {"num_kv_heads", "n_head_kv"}).value_or(s.n_heads) : multi_query ? 1 : s.n_heads;
  l.order = grouped || !multi_query ? Fused::grouped : Fused::concat;
  s.n_ff = first_count(c, {"ffn_hidden_size"}).value_or(4 * s.n_embd);
  const bool parallel = grouped || c.boolean("parallel_attn", true);
  const bool two = grouped && c.count("num_ln_in_parallel_attn", 2) == 2;
  if (parallel) s.residual = u8(Residual::parallel);
  s.norms = Norms::attn | Norms::final;
  if (two || !parallel) s.norms = s.norms | Norms::mlp;
  l[Role::attn_norm] = two ? "ln_attn" : "input_layernorm", l[Role::mlp_norm] = two ? "ln_mlp" : "post_attention_layernorm";
  if (c.boolean("alibi", false)) use_alibi(s, 8, 1 / std::sqrt(double(s.head_dim)));
  else set_rope(c, s);
}

}  // namespace gptq::convert::family
