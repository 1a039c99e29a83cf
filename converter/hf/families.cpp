// SPDX-License-Identifier: Apache-2.0
#include "converter/hf/families.h"

#include <algorithm>
#include <cmath>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;
using format::fb::SpecT;
using kernels::Activation, kernels::NormKind, kernels::Span;
using model::GroupScore, model::Mixer, model::Norms, model::Residual, model::Role, model::Score;
using C = const JsonObject&;

template <class Enum>
constexpr uint8_t u8(Enum value) { return static_cast<uint8_t>(value); }
constexpr uint8_t operator|(Norms a, Norms b) { return static_cast<uint8_t>(u8(a) | u8(b)); }
constexpr uint8_t operator|(uint8_t a, Norms b) { return static_cast<uint8_t>(a | u8(b)); }

// ---- keys that configs name differently ----

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
std::vector<uint8_t> sliding_layers(C c, const SpecT& s, uint32_t every = 0) {
  std::vector<uint8_t> out;
  for (const std::string_view type : layer_types(c, s)) out.push_back(type == "sliding_attention");
  for (uint32_t i = 0; out.size() < s.n_layers; ++i) out.push_back(every && (i + 1) % every != 0);
  return out;
}

void use_windows(C c, SpecT& s, uint32_t every = 0) {
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

template <class F>
std::vector<uint8_t> per_layer(const SpecT& s, F f) {
  std::vector<uint8_t> out;
  for (uint32_t i = 0; i < s.n_layers; ++i) out.push_back(f(i));
  return out;
}

void rope_only_where(SpecT& s, const std::vector<uint8_t>& used) {
  s.rope_of_layer.clear();
  for (uint32_t i = 0; i < s.n_layers; ++i) s.rope_of_layer.push_back(used[i] ? 0 : -1);
}

// ---- rotary embedding: the setting in the words of one kind of config, so that the frequencies come from one place ----

struct RopeOptions {
  std::string_view section;               // of rope_parameters, where it has several
  std::optional<double> theta, part;      // instead of the config's
  bool plain = false;                     // without scaling
  uint32_t base = 0;                      // rows of a head that count; 0 = head_dim
};

std::optional<JsonObject> rope_fields(C c, std::string_view section) {
  const auto parameters = c.object("rope_parameters");
  if (parameters && !section.empty())
    if (const auto own = parameters->object(section)) return own;
  if (parameters && !parameters->object("full_attention")) return parameters;
  if (parameters) return parameters->object("full_attention");
  return c.object("rope_scaling");
}

std::vector<double> doubles(C c, std::string_view key) {
  std::vector<double> out;
  const auto list = c.array(key);
  if (!list) c.refuse(key, "is missing");
  for (const auto item : *list) {
    double value;
    if (item.get_double().get(value) || !(value > 0)) c.refuse(key, "must hold positive numbers");
    out.push_back(value);
  }
  return out;
}

void use_longrope(C c, C fields, const SpecT& s, format::fb::RopeT& rope) {
  const double original = first_number(c, {"original_max_position_embeddings"}, fields.number("original_max_position_embeddings", 0));
  if (!(original >= 1)) fields.refuse("original_max_position_embeddings", "is missing");
  const double ratio = fields.number("factor", s.n_ctx_train / original);
  const double worked_out = ratio > 1 ? std::sqrt(1 + std::log(ratio) / std::log(original)) : 1;
  rope.scale = f32(first_number(fields, {"attention_factor", "short_mscale"}, worked_out));
  const std::vector<double> near = doubles(fields, "short_factor"), far = doubles(fields, "long_factor");
  if (near.size() != rope.inv_freq.size() || far.size() != rope.inv_freq.size()) fields.refuse("short_factor", "and long_factor must have a number a pair");
  for (size_t j = 0; j < near.size(); ++j) {
    rope.long_inv_freq.push_back(rope.inv_freq[j] / f32(far[j]));
    rope.inv_freq[j] /= f32(near[j]);
  }
  rope.n_ctx_original = static_cast<uint32_t>(original);
}

format::fb::RopeT rope_of(C c, const SpecT& s, const RopeOptions& o = {}) {
  const auto fields = rope_fields(c, o.section);
  const uint32_t base = o.base ? o.base : s.head_dim;
  double theta = o.theta ? *o.theta : fields ? fields->number("rope_theta", first_number(c, {"rope_theta", "rotary_emb_base"}, 10000))
                                             : first_number(c, {"rope_theta", "rotary_emb_base"}, 10000);
  const double said = first_number(c, {"partial_rotary_factor", "rotary_pct", "rope_pct"}, 1);
  const double part = o.part ? *o.part : fields ? fields->number("partial_rotary_factor", said) : said;
  const auto dim = static_cast<uint32_t>(base * part);
  const std::string_view kind = fields && !o.plain ? fields->string("rope_type").value_or(fields->string("type").value_or("default")) : "default";
  const bool longrope = kind == "longrope" || kind == "su";
  JsonWriter scaling;
  bool scaled = fields && !o.plain && !longrope && kind != "default" && kind != "mrope";
  if (scaled && kind == "dynamic" && fields->number("alpha", 0) > 0) {
    theta *= std::pow(fields->number("alpha", 1), dim / (dim - 2.0));
    scaled = false;
  }
  // InternLM2 and others say "dynamic" and mean it beyond their context alone, which the runtime does too.
  if (scaled)
    for (const auto field : fields->fields()) {
      const std::string_view key = field.key;
      constexpr std::string_view elsewhere[] = {"rope_theta", "partial_rotary_factor", "llama_4_scaling_beta", "mrope_section", "mrope_interleaved", "max_position_embeddings"};
      if (field.value.is_null() || std::find(std::begin(elsewhere), std::end(elsewhere), key) != std::end(elsewhere)) continue;
      scaling.add_raw(key, simdjson::minify(field.value));
    }
  JsonWriter text;
  text.add("rope_theta", theta);
  if (dim < base) text.add("partial_rotary_factor", (dim + 0.25) / base);  // rounded down to dim again
  if (scaled) text.add_raw("rope_scaling", scaling.object());
  if (scaled && c.has("original_max_position_embeddings")) text.add("original_max_position_embeddings", c.count("original_max_position_embeddings"));
  const JsonDocument document("config.json", text.object());
  format::fb::RopeT rope = read_rope(document.root(), base, s.n_ctx_train);
  if (longrope) use_longrope(c, *fields, s, rope);
  return rope;
}

void set_rope(C c, SpecT& s, const RopeOptions& options = {}) { s.rope = std::make_unique<format::fb::RopeT>(rope_of(c, s, options)); }
void add_rope(C c, SpecT& s, const std::vector<uint8_t>& where, const RopeOptions& options) {
  s.ropes.push_back(std::make_unique<format::fb::RopeT>(rope_of(c, s, options)));
  s.rope_of_layer.assign(where.begin(), where.end());
}
void no_rope(SpecT& s) {
  s.rope = std::make_unique<format::fb::RopeT>();
  s.rope_of_layer.assign(s.n_layers, -1);
}

// Press, Smith and Lewis 2021; for other numbers of heads as their code has it.
void use_alibi(SpecT& s, double most = 8, double factor = 1) {
  no_rope(s);
  const auto n = static_cast<uint32_t>(1u << static_cast<uint32_t>(std::log2(s.n_heads)));
  for (uint32_t i = 0; i < n; ++i) s.alibi_slopes.push_back(f32(factor * std::exp2(-most * (i + 1) / n)));
  for (uint32_t i = 1; s.alibi_slopes.size() < s.n_heads; i += 2) s.alibi_slopes.push_back(f32(factor * std::exp2(-most * i / (2 * n))));
}

void learned_positions(SpecT& s, uint32_t offset) {
  no_rope(s);
  s.n_positions = s.n_ctx_train + offset;
  s.position_offset = offset;
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
void ungated(SpecT& s, Activation activation) {
  s.ungated = true;
  s.activation = u8(activation);
}
void parallel_one_norm(SpecT& s) {
  s.residual = u8(Residual::parallel);
  s.norms = Norms::attn | Norms::final;
}
void head_norms(SpecT& s, Span span, NormKind kind = NormKind::rms) {
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
  s.activation = u8(Activation::gelu_tanh);
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
  ungated(s, Activation::gelu);
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

// ---- the table ----

const std::vector<Family>& table() {
  static const std::vector<Family> list{
      {"mixtral", {"MixtralForCausalLM"}, "Mixtral", [](C c, SpecT& s, Layout& l) {
         mixture(c, s, {"num_local_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = true;
         w1_experts(l), window_everywhere(c, s);
       }},
      {"qwen2_moe", {"Qwen2MoeForCausalLM"}, "Qwen1.5-MoE, Qwen2-MoE", [](C c, SpecT& s, Layout&) {
         mixture(c, s, {"num_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = c.boolean("norm_topk_prob", false);
         qwen_layers(c, s), qwen_shared(c, s);
       }},
      {"qwen3_moe", {"Qwen3MoeForCausalLM"}, "Qwen3-MoE", [](C c, SpecT& s, Layout&) {
         mixture(c, s, {"num_experts", "num_local_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = c.boolean("norm_topk_prob", false);
         qwen_layers(c, s), head_norms(s, Span::head);
       }},
      {"qwen3_next", {"Qwen3NextForCausalLM"}, "Qwen3-Next", [](C c, SpecT& s, Layout& l) {
         delta(c, s, l);
         mixture(c, s, {"num_experts", "num_local_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = c.boolean("norm_topk_prob", true);
         qwen_layers(c, s), qwen_shared(c, s);
         l.delta_qkvz = "linear_attn.in_proj_qkvz", l.delta_ba = "linear_attn.in_proj_ba";
       }},
      {"qwen3_5_text", {"Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"}, "Qwen3.5", delta},
      {"qwen3_5_moe_text", {"Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"}, "Qwen3.5-MoE", [](C c, SpecT& s, Layout& l) {
         delta(c, s, l);
         mixture(c, s, {"num_experts", "num_local_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = true;
         qwen_shared(c, s);
         l.experts_3d_gate_up = "mlp.experts.gate_up_proj", l.experts_3d_down = "mlp.experts.down_proj";
       }},
      {"gemma", {"GemmaForCausalLM"}, "Gemma 1", [](C c, SpecT& s, Layout& l) {
         gemma(c, s, l);
         s.attention_scale = f32(1 / std::sqrt(double(s.head_dim)));
       }},
      {"gemma2", {"Gemma2ForCausalLM"}, "Gemma 2", [](C c, SpecT& s, Layout& l) {
         sandwich(c, s, l), use_windows(c, s, 2);
         s.attention_softcap = f32(c.number("attn_logit_softcapping", 0)), s.logit_softcap = f32(c.number("final_logit_softcapping", 0));
       }},
      {"gemma3_text", {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"}, "Gemma 3", [](C c, SpecT& s, Layout& l) {
         if (!c.has("num_attention_heads")) s.n_heads = 8;
         if (!c.has("num_key_value_heads")) s.n_kv_heads = 4;
         sandwich(c, s, l), head_norms(s, Span::head);
         const auto every = static_cast<uint32_t>(first_number(c, {"sliding_window_pattern", "_sliding_window_pattern"}, 6));
         if (!c.has("sliding_window")) s.window = 4096, s.windowed_layers = sliding_layers(c, s, every);
         use_windows(c, s, every);
         set_rope(c, s, {.section = "full_attention", .theta = c.has("rope_theta") || rope_fields(c, "full_attention") ? std::nullopt : std::optional(1e6)});
         const bool sections = c.object("rope_parameters") && c.object("rope_parameters")->object("sliding_attention");
         add_rope(c, s, sliding_layers(c, s, every),
                  {.section = "sliding_attention", .theta = sections ? std::nullopt : std::optional(c.number("rope_local_base_freq", 10000)), .part = {}, .plain = true});
         s.logit_softcap = f32(c.number("final_logit_softcapping", 0)), s.attention_softcap = f32(c.number("attn_logit_softcapping", 0));
       }},
      {"deepseek_v2", {"DeepseekV2ForCausalLM"}, "DeepSeek V2", [](C c, SpecT& s, Layout& l) {
         latent(c, s, l, true, true), dense_first(c, s);
         format::fb::ExpertsT& e = mixture(c, s, {"n_routed_experts"}, {"num_experts_per_tok"}, Score::softmax);
         if (c.string("topk_method").value_or("greedy") != "greedy") e.groups = std::max(1u, c.count("n_group", 1)), e.groups_kept = std::max(1u, c.count("topk_group", 1));
         e.scale = f32(c.number("routed_scaling_factor", 1));
         e.n_ff_shared = c.count("n_shared_experts", 0) * e.n_ff;
         shared_names(l, "mlp.shared_experts.");
       }},
      {"deepseek_v3", {"DeepseekV3ForCausalLM", "KimiK2ForCausalLM"}, "DeepSeek V3 and R1, Kimi-K2, Moonlight", [](C c, SpecT& s, Layout& l) {
         latent(c, s, l, c.boolean("rope_interleave", true), true), dense_first(c, s), deepseek_v3_route(c, s, l);
       }},
      {"glm4_moe_lite", {"Glm4MoeLiteForCausalLM"}, "GLM-4.7-Flash", [](C c, SpecT& s, Layout& l) {
         latent(c, s, l, c.boolean("rope_interleave", true), true), deepseek_v3_route(c, s, l);
         std::vector<uint8_t> sparse;
         if (const auto types = c.array("mlp_layer_types"))
           for (const auto type : *types) {
             std::string_view name;
             sparse.push_back(!type.get_string().get(name) && name != "dense");
           }
         if (sparse.empty()) sparse = per_layer(s, [](uint32_t i) { return i > 0; });
         if (sparse.size() != s.n_layers) c.refuse("mlp_layer_types", "must have one entry per layer");
         s.expert_layers = sparse;
       }},
      {"minicpm3", {"MiniCPM3ForCausalLM"}, "MiniCPM 3", [](C c, SpecT& s, Layout& l) {
         latent(c, s, l, false, false), minicpm_scales(c, s);
         s.tied_head = c.boolean("tie_word_embeddings", true);
       }},
      {"phi3", {"Phi3ForCausalLM"}, "Phi-3, 3.5 and 4", [](C c, SpecT& s, Layout& l) {
         l.qkv = "self_attn.qkv_proj", l.gate_up = "mlp.gate_up_proj", window_everywhere(c, s);
       }},
      {"phimoe", {"PhiMoEForCausalLM", "PhimoeForCausalLM"}, "Phi-3.5-MoE", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), w1_experts(l), window_everywhere(c, s);
         mixture(c, s, {"num_local_experts"}, {"num_experts_per_tok"}, Score::sparsemixer).jitter = f32(c.number("router_jitter_noise", 0.01));
       }},
      {"phi", {"PhiForCausalLM"}, "Phi-1, 1.5 and 2", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), ungated(s, Activation::gelu_tanh);
         use_activation(c, s, c.string("hidden_act").value_or("gelu_new"));
         l[Role::o] = "self_attn.dense", l[Role::final_norm] = "model.final_layernorm", l[Role::up] = "mlp.fc1", l[Role::down] = "mlp.fc2";
         if (c.boolean("qk_layernorm", false)) head_norms(s, Span::head, NormKind::layer), l[Role::q_norm] = "self_attn.q_layernorm", l[Role::k_norm] = "self_attn.k_layernorm";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("partial_rotary_factor") || c.has("rope_parameters") ? std::nullopt : std::optional(0.5)});
       }},
      {"gpt_neox", {"GPTNeoXForCausalLM"}, "GPT-NeoX, Pythia", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu);
         use_activation(c, s, c.string("hidden_act").value_or("gelu"));
         if (c.boolean("use_parallel_residual", true)) s.residual = u8(Residual::parallel);
         l.layer = "gpt_neox.layers.{}.", l[Role::embed] = "gpt_neox.embed_in", l[Role::final_norm] = "gpt_neox.final_layer_norm", l[Role::head] = "embed_out";
         l.qkv = "attention.query_key_value", l.order = Fused::grouped, l[Role::o] = "attention.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("rotary_pct") || c.has("partial_rotary_factor") || c.has("rope_parameters") ? std::nullopt : std::optional(0.25)});
       }},
      {"gptj", {"GPTJForCausalLM"}, "GPT-J", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), ungated(s, Activation::gelu_tanh), gpt_names(l);
         l[Role::q] = "attn.q_proj", l[Role::k] = "attn.k_proj", l[Role::v] = "attn.v_proj", l[Role::o] = "attn.out_proj", l[Role::up] = "mlp.fc_in", l[Role::down] = "mlp.fc_out";
         l.rope_pairs = true;
         set_rope(c, s, {.section = {}, .theta = {}, .part = (c.count("rotary_dim", 64) + 0.25) / s.head_dim});
       }},
      {"codegen", {"CodeGenForCausalLM"}, "CodeGen", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), ungated(s, Activation::gelu_tanh), gpt_names(l);
         l.qkv = "attn.qkv_proj", l.order = Fused::codegen, l[Role::o] = "attn.out_proj", l[Role::up] = "mlp.fc_in", l[Role::down] = "mlp.fc_out";
         l.rope_pairs = true;
         set_rope(c, s, {.section = {}, .theta = {}, .part = (c.count("rotary_dim", 64) + 0.25) / s.head_dim});
       }},
      {"gpt2", {"GPT2LMHeadModel"}, "GPT-2", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu_tanh), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
         use_activation(c, s, c.string("activation_function").value_or("gelu_new"));
         l[Role::positions] = "transformer.wpe", l.qkv = "attn.c_attn", l[Role::o] = "attn.c_proj", l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj", l.transposed = true;
         if (c.boolean("scale_attn_by_inverse_layer_idx", false))
           for (uint32_t i = 0; i < s.n_layers; ++i) s.attention_scales.push_back(s.attention_scale / f32(i + 1));
       }},
      {"gpt_bigcode", {"GPTBigCodeForCausalLM"}, "StarCoder, SantaCoder", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu_tanh), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
         use_activation(c, s, c.string("activation_function").value_or("gelu_pytorch_tanh"));
         l[Role::positions] = "transformer.wpe", l.qkv = "attn.c_attn", l[Role::o] = "attn.c_proj", l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj";
         const bool multi_query = c.boolean("multi_query", true);
         s.n_kv_heads = multi_query ? 1 : s.n_heads;
         l.order = multi_query ? Fused::concat : Fused::grouped;
       }},
      {"gpt_neo", {"GPTNeoForCausalLM"}, "GPT-Neo", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu_tanh), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
         s.attention_scale = 1;
         l[Role::positions] = "transformer.wpe", l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj";
         l[Role::q] = "attn.attention.q_proj", l[Role::k] = "attn.attention.k_proj", l[Role::v] = "attn.attention.v_proj", l[Role::o] = "attn.attention.out_proj";
         s.window = c.count("window_size", 256);
         if (const auto list = c.array("attention_layers"))
           for (const auto item : *list) {
             std::string_view name;
             s.windowed_layers.push_back(!item.get_string().get(name) && name == "local");
           }
         if (s.windowed_layers.empty()) s.windowed_layers = per_layer(s, [](uint32_t i) { return i % 2 == 1; });
         if (s.windowed_layers.size() != s.n_layers) c.refuse("attention_layers", "must have one entry per layer");
       }},
      {"opt", {"OPTForCausalLM"}, "OPT", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::relu), learned_positions(s, 2), tied_by_default(c, s);
         use_activation(c, s, c.string("activation_function").value_or("relu"));
         const bool before = c.boolean("do_layer_norm_before", true);
         if (!before) s.residual = u8(Residual::norm_after_add);
         s.norms = before && !c.boolean("_remove_final_layer_norm", false) ? Norms::attn | Norms::mlp | Norms::final : Norms::attn | Norms::mlp;
         s.n_embed = c.count("word_embed_proj_dim", s.n_embd);
         const std::string at = "model.decoder.";
         l.layer = at + "layers.{}.", l[Role::embed] = at + "embed_tokens", l[Role::positions] = at + "embed_positions", l[Role::final_norm] = at + "final_layer_norm";
         l[Role::embed_proj] = at + "project_in", l[Role::head_proj] = at + "project_out", l[Role::attn_norm] = "self_attn_layer_norm", l[Role::mlp_norm] = "final_layer_norm";
         l[Role::o] = "self_attn.out_proj", l[Role::up] = "fc1", l[Role::down] = "fc2";
       }},
      {"bloom", {"BloomForCausalLM"}, "BLOOM", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu_tanh), use_alibi(s), tied_by_default(c, s);
         s.norms = Norms::attn | Norms::mlp | Norms::final | Norms::embed;
         if (c.boolean("apply_residual_connection_post_layernorm", false)) s.residual = u8(Residual::from_norm);
         s.n_ff = 4 * s.n_embd;
         l.layer = "transformer.h.{}.", l[Role::embed] = "transformer.word_embeddings", l[Role::embed_norm] = "transformer.word_embeddings_layernorm", l[Role::final_norm] = "transformer.ln_f";
         l.qkv = "self_attention.query_key_value", l.order = Fused::grouped, l[Role::o] = "self_attention.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
       }},
      {"falcon", {"FalconForCausalLM", "RWForCausalLM"}, "Falcon", falcon},
      {"mpt", {"MptForCausalLM", "MPTForCausalLM"}, "MPT", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu), tied_by_default(c, s);
         s.n_ff = static_cast<uint32_t>(c.number("expansion_ratio", 4) * s.n_embd);
         const auto attention = c.object("attn_config");
         use_alibi(s, attention ? attention->number("alibi_bias_max", 8) : 8);
         if (attention) s.clip_qkv = f32(attention->number("clip_qkv", 0));
         if (attention && attention->has("softmax_scale")) s.attention_scale = f32(attention->number("softmax_scale", 1));
         l.layer = "transformer.blocks.{}.", l[Role::embed] = "transformer.wte", l[Role::final_norm] = "transformer.norm_f", l[Role::attn_norm] = "norm_1", l[Role::mlp_norm] = "norm_2";
         l.qkv = "attn.Wqkv", l[Role::o] = "attn.out_proj", l[Role::up] = "ffn.up_proj", l[Role::down] = "ffn.down_proj";
       }},
      {"starcoder2", {"Starcoder2ForCausalLM"}, "StarCoder2", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::gelu_tanh), tied_by_default(c, s), window_everywhere(c, s);
         use_activation(c, s, c.string("hidden_act").value_or("gelu_pytorch_tanh"));
         l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj";
       }},
      {"stablelm", {"StableLmForCausalLM", "StableLMEpochForCausalLM"}, "StableLM", [](C c, SpecT& s, Layout& l) {
         layer_norms(s);
         if (c.boolean("use_parallel_residual", false)) parallel_one_norm(s);
         if (c.boolean("qk_layernorm", false)) head_norms(s, Span::each_head, NormKind::layer);
         l[Role::q_norm] = "self_attn.q_layernorm.norms.{}", l[Role::k_norm] = "self_attn.k_layernorm.norms.{}";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("partial_rotary_factor") || c.has("rope_pct") || c.has("rope_parameters") ? std::nullopt : std::optional(0.25)});
       }},
      {"persimmon", {"PersimmonForCausalLM"}, "Persimmon", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::relu2);
         use_activation(c, s, c.string("hidden_act").value_or("relu2"));
         if (c.boolean("qk_layernorm", true)) head_norms(s, Span::head, NormKind::layer);
         l[Role::q_norm] = "self_attn.q_layernorm", l[Role::k_norm] = "self_attn.k_layernorm", l[Role::final_norm] = "model.final_layernorm";
         l.qkv = "self_attn.query_key_value", l.order = Fused::grouped, l[Role::o] = "self_attn.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("partial_rotary_factor") || c.has("rope_parameters") ? std::nullopt : std::optional(0.5)});
       }},
      {"cohere", {"CohereForCausalLM"}, "Cohere Command-R", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), tied_by_default(c, s);
         l.rope_pairs = true, s.logit_scale = f32(c.number("logit_scale", 0.0625));
         if (c.boolean("use_qk_norm", false)) head_norms(s, Span::each_head, NormKind::layer);
       }},
      {"cohere2", {"Cohere2ForCausalLM"}, "Cohere Command-R7B", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), tied_by_default(c, s);
         l.rope_pairs = true, s.logit_scale = f32(c.number("logit_scale", 0.0625));
         const auto every = static_cast<uint32_t>(first_number(c, {"sliding_window_pattern", "_sliding_window_pattern"}, 4));
         use_windows(c, s, every), rope_only_where(s, sliding_layers(c, s, every));
       }},
      {"granite", {"GraniteForCausalLM"}, "Granite", [](C c, SpecT& s, Layout&) { granite_scales(c, s); }},
      {"granitemoe", {"GraniteMoeForCausalLM"}, "Granite MoE", [](C c, SpecT& s, Layout& l) {
         granite_scales(c, s);
         mixture(c, s, {"num_local_experts"}, {"num_experts_per_tok"}, Score::softmax_of_chosen);
         l[Role::router] = "block_sparse_moe.router.layer";
         l.expert_gate_up = "block_sparse_moe.input_linear.{}.linear", l[Role::expert_down] = "block_sparse_moe.output_linear.{}.linear";
         l.experts_3d_gate_up = "block_sparse_moe.input_linear.weight", l.experts_3d_down = "block_sparse_moe.output_linear.weight";
       }},
      {"minicpm", {"MiniCPMForCausalLM"}, "MiniCPM 1 and 2", [](C c, SpecT& s, Layout&) {
         minicpm_scales(c, s);
         s.tied_head = c.boolean("tie_word_embeddings", true);
       }},
      {"olmo", {"OlmoForCausalLM"}, "OLMo 1", [](C c, SpecT& s, Layout& l) {
         layer_norms(s);
         s.norm_eps = 1e-5f, s.clip_qkv = f32(c.number("clip_qkv", 0)), l.ones_norms = true;
       }},
      {"olmo2", {"Olmo2ForCausalLM"}, "OLMo 2", [](C, SpecT& s, Layout& l) { out_norms_alone(s, l), head_norms(s, Span::all); }},
      {"olmo3", {"Olmo3ForCausalLM"}, "OLMo 3", [](C c, SpecT& s, Layout& l) {
         out_norms_alone(s, l), head_norms(s, Span::all), use_windows(c, s, 4);
         add_rope(c, s, sliding_layers(c, s, 4), {.section = "sliding_attention", .theta = {}, .part = {}, .plain = true});
       }},
      {"olmoe", {"OlmoeForCausalLM"}, "OLMoE", [](C c, SpecT& s, Layout&) {
         mixture(c, s, {"num_experts", "num_local_experts"}, {"num_experts_per_tok"}, Score::softmax).normalize = c.boolean("norm_topk_prob", false);
         head_norms(s, Span::all);
         s.clip_qkv = f32(c.number("clip_qkv", 0));
       }},
      {"glm", {"GlmForCausalLM"}, "GLM-4 9B", [](C c, SpecT& s, Layout& l) {
         l.gate_up = "mlp.gate_up_proj", l.rope_pairs = true;
         if (!c.has("partial_rotary_factor") && !c.has("rope_parameters")) set_rope(c, s, {.section = {}, .theta = {}, .part = 0.5});
       }},
      {"glm4", {"Glm4ForCausalLM"}, "GLM-4-0414", [](C c, SpecT& s, Layout& l) {
         l.gate_up = "mlp.gate_up_proj", l.rope_pairs = true;
         l[Role::attn_out_norm] = "post_self_attn_layernorm", l[Role::mlp_out_norm] = "post_mlp_layernorm";
         s.norms = 63 & ~u8(Norms::embed);
         if (!c.has("partial_rotary_factor") && !c.has("rope_parameters")) set_rope(c, s, {.section = {}, .theta = {}, .part = 0.5});
       }},
      {"glm4_moe", {"Glm4MoeForCausalLM"}, "GLM-4.5, 4.6", [](C c, SpecT& s, Layout& l) {
         dense_first(c, s), deepseek_v3_route(c, s, l);
         if (c.boolean("use_qk_norm", false)) head_norms(s, Span::head);
         if (!c.has("partial_rotary_factor") && !c.has("rope_parameters")) set_rope(c, s, {.section = {}, .theta = {}, .part = 0.5});
       }},
      {"dots1", {"Dots1ForCausalLM"}, "dots.llm1", [](C c, SpecT& s, Layout& l) {
         dense_first(c, s), deepseek_v3_route(c, s, l), head_norms(s, Span::head), use_windows(c, s);
       }},
      {"chatglm", {"ChatGLMModel", "ChatGLMForConditionalGeneration"}, "ChatGLM 2 and 3, GLM-4", [](C c, SpecT& s, Layout& l) {
         if (!c.has("multi_query_group_num") && !c.has("padded_vocab_size"))
           fail(GPTQ_E_UNSUPPORTED, "'", c.where(), "': ChatGLM 1 is another kind of network (a prefix model), which is not supported");
         const std::string at = "transformer.encoder.";
         l.layer = at + "layers.{}.", l[Role::embed] = "transformer.embedding.word_embeddings", l[Role::final_norm] = at + "final_layernorm", l[Role::head] = "transformer.output_layer";
         l.qkv = "self_attention.query_key_value", l[Role::o] = "self_attention.dense", l.gate_up = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h", l.rope_pairs = true;
         if (!c.boolean("multi_query_attention", true)) s.n_kv_heads = s.n_heads;
         if (!c.boolean("rmsnorm", true)) layer_norms(s);
         set_rope(c, s, {.section = {}, .theta = 10000 * c.number("rope_ratio", 1), .part = 0.5});
       }},
      {"internlm2", {"InternLM2ForCausalLM"}, "InternLM 2", [](C, SpecT&, Layout& l) {
         l[Role::embed] = "model.tok_embeddings", l[Role::head] = "output", l[Role::attn_norm] = "attention_norm", l[Role::mlp_norm] = "ffn_norm";
         l.qkv = "attention.wqkv", l.order = Fused::grouped, l[Role::o] = "attention.wo", l[Role::gate] = "feed_forward.w1", l[Role::up] = "feed_forward.w3", l[Role::down] = "feed_forward.w2";
       }},
      {"internlm3", {"InternLM3ForCausalLM"}, "InternLM 3", [](C, SpecT&, Layout&) {}},
      {"baichuan", {"BaichuanForCausalLM", "BaiChuanForCausalLM"}, "Baichuan 1 and 2", [](C, SpecT& s, Layout& l) {
         l.qkv = "self_attn.W_pack", l.unit_head = s.n_vocab == 125696;
         if (s.n_heads == 40) use_alibi(s);  // 13B
       }},
      {"qwen", {"QWenLMHeadModel"}, "Qwen 1", [](C, SpecT& s, Layout& l) {
         gpt_names(l);
         s.n_ff /= 2;
         l.qkv = "attn.c_attn", l[Role::o] = "attn.c_proj", l[Role::gate] = "mlp.w2", l[Role::up] = "mlp.w1", l[Role::down] = "mlp.c_proj";
       }},
      {"exaone", {"ExaoneForCausalLM"}, "EXAONE 3", [](C, SpecT&, Layout& l) {
         gpt_names(l);
         l[Role::q] = "attn.attention.q_proj", l[Role::k] = "attn.attention.k_proj", l[Role::v] = "attn.attention.v_proj", l[Role::o] = "attn.attention.out_proj";
         l[Role::gate] = "mlp.c_fc_0", l[Role::up] = "mlp.c_fc_1", l[Role::down] = "mlp.c_proj";
       }},
      {"exaone4", {"Exaone4ForCausalLM"}, "EXAONE 4", [](C c, SpecT& s, Layout& l) {
         out_norms_alone(s, l), head_norms(s, Span::head), use_windows(c, s, 4);
         if (s.window) rope_only_where(s, s.windowed_layers);
       }},
      {"ministral", {"MinistralForCausalLM"}, "Ministral", [](C c, SpecT& s, Layout&) { use_windows(c, s); }},
      {"ministral3", {"Ministral3ForCausalLM"}, "Ministral 3", [](C c, SpecT& s, Layout&) {
         window_everywhere(c, s);
         const auto fields = rope_fields(c, "");
         if (!fields || !fields->has("llama_4_scaling_beta")) return;
         s.query_scale = std::make_unique<format::fb::QueryScaleT>();
         s.query_scale->factor = f32(fields->number("llama_4_scaling_beta", 0));
         s.query_scale->floor = f32(fields->number("original_max_position_embeddings", s.n_ctx_train));
       }},
      {"seed_oss", {"SeedOssForCausalLM"}, "Seed-OSS", [](C, SpecT&, Layout&) {}},
      {"smollm3", {"SmolLM3ForCausalLM"}, "SmolLM3", [](C c, SpecT& s, Layout&) {
         tied_by_default(c, s), use_windows(c, s);
         const uint32_t every = c.count("no_rope_layer_interval", 4);
         const auto listed = number_list(c, "no_rope_layers", s);
         rope_only_where(s, listed.empty() ? per_layer(s, [&](uint32_t i) { return (i + 1) % every != 0; }) : listed);
       }},
      {"nemotron", {"NemotronForCausalLM"}, "Nemotron", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(s, Activation::relu2);
         l.plus_one = true;
         if (!c.has("partial_rotary_factor") && !c.has("rope_percent") && !c.has("rope_parameters")) set_rope(c, s, {.section = {}, .theta = {}, .part = 0.5});
       }},
      {"helium", {"HeliumForCausalLM"}, "Helium", [](C, SpecT&, Layout& l) { l.rope_pairs = true; }},
      {"arcee", {"ArceeForCausalLM"}, "Arcee", [](C, SpecT& s, Layout&) { ungated(s, Activation::relu2); }},
      {"apertus", {"ApertusForCausalLM"}, "Apertus", [](C, SpecT& s, Layout& l) {
         ungated(s, Activation::xielu), head_norms(s, Span::head);
         l[Role::attn_norm] = "attention_layernorm", l[Role::mlp_norm] = "feedforward_layernorm", l[Role::act_params] = "mlp.act_fn.";
       }},
      {"ernie4_5", {"Ernie4_5ForCausalLM"}, "ERNIE 4.5", [](C c, SpecT& s, Layout& l) { l.rope_pairs = true, tied_by_default(c, s); }},
      {"ernie4_5_moe", {"Ernie4_5_MoeForCausalLM"}, "ERNIE 4.5 MoE", [](C c, SpecT& s, Layout& l) {
         l.rope_pairs = true, tied_by_default(c, s);
         format::fb::ExpertsT& e = mixture(c, s, {"moe_num_experts"}, {"moe_k"}, Score::softmax);
         e.choice_bias = e.normalize = true, e.least_sum = f32(c.number("moe_norm_min", 1e-12));
         e.n_ff_shared = c.count("moe_num_shared_experts", 0) * e.n_ff;
         shared_names(l, "mlp.shared_experts."), l[Role::router_bias] = "mlp.moe_statics.e_score_correction_bias";
         const int64_t first = c.integer("moe_layer_start_index").value_or(0), last = c.integer("moe_layer_end_index").value_or(-1), step = std::max<int64_t>(1, c.integer("moe_layer_interval").value_or(1));
         s.expert_layers = per_layer(s, [&](uint32_t i) { return i >= first && (last < 0 || i <= last) && (i + 1) % step == 0; });
       }},
      {"hunyuan_v1_dense", {"HunYuanDenseV1ForCausalLM"}, "HunYuan", [](C, SpecT& s, Layout& l) {
         head_norms(s, Span::head), s.qk_norm_after_rope = true, l[Role::q_norm] = "self_attn.query_layernorm", l[Role::k_norm] = "self_attn.key_layernorm";
       }},
      {"hunyuan_v1_moe", {"HunYuanMoEV1ForCausalLM"}, "HunYuan MoE", [](C c, SpecT& s, Layout& l) {
         head_norms(s, Span::head), s.qk_norm_after_rope = true, l[Role::q_norm] = "self_attn.query_layernorm", l[Role::k_norm] = "self_attn.key_layernorm";
         const auto one = [&](std::string_view key) {  // a number, or a list with one a layer
           simdjson::dom::array list;
           uint64_t value = 0;
           if (const auto found = c.find(key); found && !found->get_array().get(list) && list.size() && !list.at(0).get_uint64().get(value))
             return static_cast<uint32_t>(value);
           return c.count(key, 1);
         };
         s.experts = std::make_unique<format::fb::ExpertsT>();
         s.experts->n = one("num_experts"), s.experts->n_active = one("moe_topk"), s.experts->n_ff = c.has("moe_intermediate_size") ? one("moe_intermediate_size") : s.n_ff;
         s.experts->normalize = true;
         s.experts->n_ff_shared = (c.has("num_shared_expert") ? one("num_shared_expert") : 1) * s.n_ff;
         l[Role::router] = "mlp.gate.wg", shared_names(l, "mlp.shared_mlp.");
       }},
      {"minimax_m2", {"MiniMaxM2ForCausalLM"}, "MiniMax-M2", [](C c, SpecT& s, Layout& l) {
         head_norms(s, Span::all), w1_experts(l);
         format::fb::ExpertsT& e = mixture(c, s, {"num_local_experts"}, {"num_experts_per_tok"}, Score::sigmoid);
         e.choice_bias = e.normalize = true;
         if (c.has("rotary_dim")) set_rope(c, s, {.section = {}, .theta = {}, .part = (c.count("rotary_dim") + 0.25) / s.head_dim});
       }},
      {"llama4_text", {"Llama4ForCausalLM", "Llama4ForConditionalGeneration"}, "Llama 4", [](C c, SpecT& s, Layout& l) {
         l.rope_pairs = true;
         auto rope = number_list(c, "no_rope_layers", s);
         const uint32_t every = c.count("no_rope_layer_interval", 4);
         if (rope.empty()) rope = per_layer(s, [&](uint32_t i) { return (i + 1) % every != 0; });
         rope_only_where(s, rope);
         s.chunk = c.count("attention_chunk_size", 8192), s.chunked_layers = rope;
         if (c.boolean("use_qk_norm", true)) head_norms(s, Span::unit), s.qk_norm_after_rope = true;
         if (c.boolean("attn_temperature_tuning", true)) {
           s.query_scale = std::make_unique<format::fb::QueryScaleT>();
           s.query_scale->floor = f32(c.number("floor_scale", 8192)), s.query_scale->factor = f32(c.number("attn_scale", 0.1)), s.query_scale->offset = 1;
           s.query_scaled_layers = per_layer(s, [&](uint32_t i) { return !rope[i]; });
         }
         format::fb::ExpertsT& e = mixture(c, s, {"num_local_experts"}, {"num_experts_per_tok"}, Score::sigmoid);
         e.weigh_input = true, e.n_ff_shared = e.n_ff = s.n_ff;
         s.n_ff = c.count("intermediate_size_mlp", s.n_ff);
         const uint32_t step = std::max(1u, c.count("interleave_moe_layer_step", 1));
         s.expert_layers = per_layer(s, [&](uint32_t i) { return (i + 1) % step == 0; });
         if (const auto list = c.array("moe_layers")) {
           std::fill(s.expert_layers.begin(), s.expert_layers.end(), 0);
           for (const auto item : *list) {
             uint64_t index;
             if (!item.get_uint64().get(index) && index < s.n_layers) s.expert_layers[index] = 1;
           }
         }
         l.expert = "feed_forward.experts.{}.", l[Role::router] = "feed_forward.router", shared_names(l, "feed_forward.shared_expert.");
         l[Role::gate] = "feed_forward.gate_proj", l[Role::up] = "feed_forward.up_proj", l[Role::down] = "feed_forward.down_proj";
         l.experts_3d_gate_up = "feed_forward.experts.gate_up_proj", l.experts_3d_down = "feed_forward.experts.down_proj", l.transposed_3d = true;
       }},
      {"gpt_oss", {"GptOssForCausalLM"}, "gpt-oss", [](C c, SpecT& s, Layout& l) {
         s.activation = u8(Activation::swiglu_clamped), s.sinks = true, use_windows(c, s, 2);
         if (!layer_types(c, s).size()) s.windowed_layers = per_layer(s, [](uint32_t i) { return i % 2 == 0; });
         mixture(c, s, {"num_local_experts", "num_experts"}, {"num_experts_per_tok", "experts_per_token"}, Score::softmax_of_chosen);
         l[Role::router] = "mlp.router";
         l.experts_3d_gate_up = "mlp.experts.gate_up_proj", l.experts_3d_down = "mlp.experts.down_proj", l.transposed_3d = l.interleaved_gate_up = true;
       }},
      {"lfm2", {"Lfm2ForCausalLM"}, "LFM2", lfm2},
      {"lfm2_moe", {"Lfm2MoeForCausalLM"}, "LFM2 MoE", [](C c, SpecT& s, Layout& l) {
         lfm2(c, s, l);
         format::fb::ExpertsT& e = mixture(c, s, {"num_experts"}, {"num_experts_per_tok"}, Score::sigmoid);
         e.choice_bias = c.boolean("use_expert_bias", true), e.normalize = c.boolean("norm_topk_prob", true), e.epsilon = 1e-6f, e.scale = f32(c.number("routed_scaling_factor", 1));
         const uint32_t dense = c.count("num_dense_layers", 2);
         s.expert_layers = per_layer(s, [&](uint32_t i) { return i >= dense; });
         l.expert = "feed_forward.experts.{}.", l[Role::expert_gate] = "w1", l[Role::expert_up] = "w3", l[Role::expert_down] = "w2";
         l[Role::router] = "feed_forward.gate", l[Role::router_bias] = "feed_forward.expert_bias";
       }},
  };
  return list;
}

double default_eps(std::string_view model_type) {
  for (const std::string_view small : {"gemma", "gemma2", "gemma3_text", "deepseek_v2", "deepseek_v3", "qwen", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "dots1",
                                       "granite", "granitemoe", "minicpm", "minicpm3", "internlm2", "internlm3", "baichuan", "minimax_m2", "smollm3", "seed_oss"})
    if (model_type == small) return 1e-6;
  return 1e-5;
}

}  // namespace

const std::vector<Family>& families() { return table(); }

JsonObject text_config(const JsonObject& config) { return config.object("text_config").value_or(config); }

const Family* find_family(const JsonObject& config) {
  const JsonObject text = text_config(config);
  const auto of_type = [](std::string_view type) -> const Family* {
    constexpr std::pair<std::string_view, std::string_view> others[] = {{"gemma3", "gemma3_text"}, {"qwen3_5", "qwen3_5_text"}, {"qwen3_5_moe", "qwen3_5_moe_text"}, {"llama4", "llama4_text"},
                                                                        {"RefinedWebModel", "falcon"}, {"RefinedWeb", "falcon"}, {"kimi_k2", "deepseek_v3"}, {"stablelm_epoch", "stablelm"},
                                                                        {"exaone3", "exaone"}};
    for (const auto& [other, own] : others)
      if (type == other) type = own;
    for (const Family& family : families())
      if (family.model_type == type) return &family;
    return nullptr;
  };
  if (const auto names = config.array("architectures"); names && names->size()) {
    std::string_view name;
    if (!names->at(0).get_string().get(name))
      for (const Family& family : families())
        if (std::find(family.classes.begin(), family.classes.end(), name) != family.classes.end()) return &family;
  }
  if (const auto type = text.string("model_type"))
    if (const Family* family = of_type(*type)) return family;
  return nullptr;
}

void read_family(const Family& family, const JsonObject& config, SpecT& s, Layout& layout) {
  const JsonObject c = text_config(config);
  s.n_vocab = first_count(c, {"padded_vocab_size", "vocab_size"}).value_or(family.model_type == "gemma3_text" ? 262208 : 0);
  s.n_layers = first_count(c, {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}).value_or(0);
  s.n_embd = first_count(c, {"hidden_size", "n_embd", "d_model"}).value_or(0);
  s.n_heads = first_count(c, {"num_attention_heads", "n_head", "n_heads", "num_heads"}).value_or(family.model_type == "gemma3_text" ? 8 : 0);
  for (const auto& [value, key] : {std::pair{s.n_vocab, "vocab_size"}, {s.n_layers, "num_hidden_layers"}, {s.n_embd, "hidden_size"}, {s.n_heads, "num_attention_heads"}})
    if (value == 0) c.refuse(key, "is missing");
  if (s.n_layers > 1024) c.refuse("num_hidden_layers", "is more than the 1024 that are supported");
  s.n_kv_heads = first_count(c, {"num_key_value_heads", "num_kv_heads", "multi_query_group_num"}).value_or(s.n_heads);
  s.head_dim = first_count(c, {"head_dim", "kv_channels"}).value_or(std::max(1u, s.n_embd / s.n_heads));
  if (s.head_dim > 512) c.refuse("head_dim", "is more than the 512 that are supported");
  s.n_ff = first_count(c, {"intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "feed_forward_length"}).value_or(4 * s.n_embd);
  s.n_ctx_train = first_count(c, {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "model_max_length", "n_ctx"}).value_or(2048);
  s.norm_eps = f32(first_number(c, {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps", "layernorm_epsilon"}, default_eps(family.model_type)));
  s.attention_scale = f32(1 / std::sqrt(double(s.head_dim)));
  s.tied_head = c.boolean("tie_word_embeddings", config.boolean("tie_word_embeddings", false));
  s.activation = u8(Activation::silu);
  if (const auto act = c.string("hidden_act"); act && family.model_type != "apertus" && family.model_type != "gpt_oss") use_activation(c, s, *act);
  family.read(c, s, layout);
  if (!s.rope) set_rope(c, s, {.section = "full_attention"});
  if (s.rope->dynamic_factor > 0) s.n_ctx_train = static_cast<uint32_t>(std::min(double(model::n_ctx_max), s.n_ctx_train * double(s.rope->dynamic_factor)));
}

}  // namespace gptq::convert
