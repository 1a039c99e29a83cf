// SPDX-License-Identifier: Apache-2.0
#include "converter/gguf/gguf_families.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "converter/gguf/gguf_description.h"
#include "converter/json_writer.h"

namespace gptq::convert {
namespace {

using base::fail;
using K = const GgufKeys&;
using F = GgufFamily::Fields;

// ---- fields ----

void put(F& f, const std::string& key, double value) { f[key] = json_number(value); }
void put(F& f, const std::string& key, uint32_t value) { f[key] = std::to_string(value); }
void put(F& f, const std::string& key, bool value) { f[key] = value ? "true" : "false"; }
// The key's number where the file has it.
void take(K k, std::string_view key, F& f, const std::string& field) {
  if (const auto value = k.number(key)) put(f, field, *value);
}
uint32_t layers(K k) { return k.count("block_count") - std::min(k.count("block_count"), k.count("nextn_predict_layers", 0)); }
bool has_tensor(K k, std::string_view name) { return k.file().find(name) != nullptr; }
// Whether some layer has it.
bool has_in_layer(const GgufFile& file, uint32_t n_layers, const std::string& name) {
  for (uint32_t i = 0; i < n_layers; ++i)
    if (file.find("blk." + std::to_string(i) + "." + name)) return true;
  return false;
}

// The window, and which layers have it: a list, or every which has none; without either as config.json's default.
void windows(K k, F& f) {
  if (k.count("attention.sliding_window", 0) == 0) {
    f["sliding_window"] = "null";
    return;
  }
  put(f, "sliding_window", k.count("attention.sliding_window"));
  const auto* list = k.list("attention.sliding_window_pattern");
  if (!list) {
    if (const uint32_t every = k.has("attention.sliding_window_pattern") ? k.count("attention.sliding_window_pattern") : 0)
      put(f, "sliding_window_pattern", every);
    return;
  }
  std::vector<std::string_view> types;
  for (uint32_t i = 0; i < layers(k) && i < list->size(); ++i) types.push_back((*list)[i] ? "sliding_attention" : "full_attention");
  f["layer_types"] = json_list(types, [](std::string_view type) { return json_quoted(type); });
}

void experts(K k, F& f, const std::string& n, const std::string& active = "num_experts_per_tok") {
  put(f, n, k.count("expert_count"));
  put(f, active, k.count("expert_used_count"));
  if (k.has("expert_feed_forward_length")) put(f, "moe_intermediate_size", k.same_count("expert_feed_forward_length", true));
}

void deepseek_experts(K k, F& f) {
  experts(k, f, "n_routed_experts");
  put(f, "n_shared_experts", k.count("expert_shared_count", 0));
  put(f, "routed_scaling_factor", k.number("expert_weights_scale").value_or(1));
  put(f, "norm_topk_prob", k.boolean("expert_weights_norm").value_or(false));
  put(f, "n_group", std::max(1u, k.count("expert_group_count", 1)));
  put(f, "topk_group", std::max(1u, k.count("expert_group_used_count", 1)));
  put(f, "first_k_dense_replace", k.count("leading_dense_block_count", 0));
}

void latent(K k, F& f) {
  const uint32_t rope = k.count("rope.dimension_count"),
                 key = k.count(k.has("attention.key_length_mla") ? "attention.key_length_mla" : "attention.key_length");
  if (key <= rope) k.file().refuse(k.full("attention.key_length"), "must be more than the rotary dimensions");
  put(f, "kv_lora_rank", k.count("attention.kv_lora_rank"));
  if (const uint32_t rank = k.count("attention.q_lora_rank", 0)) put(f, "q_lora_rank", rank);
  put(f, "qk_nope_head_dim", key - rope);
  put(f, "qk_rope_head_dim", rope);
  put(f, "v_head_dim", k.count(k.has("attention.value_length_mla") ? "attention.value_length_mla" : "attention.value_length"));
  put(f, "head_dim", key);
  f.erase("partial_rotary_factor");
  if (k.string("rope.scaling.type").value_or("none") != "yarn") return;
  JsonWriter yarn;  // the rotary part is not scaled, attention is
  yarn.add("rope_type", "yarn").add("attention_factor", 1).add("factor", k.number("rope.scaling.factor").value_or(1));
  if (const uint32_t original = k.count("rope.scaling.original_context_length", 0)) yarn.add("original_max_position_embeddings", original);
  if (const auto beta = k.number("rope.scaling.yarn_beta_fast")) yarn.add("beta_fast", *beta);
  if (const auto beta = k.number("rope.scaling.yarn_beta_slow")) yarn.add("beta_slow", *beta);
  if (const auto all = k.number("rope.scaling.yarn_log_multiplier")) yarn.add("mscale_all_dim", *all / 0.1);
  f["rope_scaling"] = yarn.object();
}

void qwen2_moe(K k, F& f) {
  experts(k, f, "num_experts");
  put(f, "shared_expert_intermediate_size", k.count("expert_shared_feed_forward_length", 0));
}

// Gemma's largest models scale by the width of a head as it would be, not as it is.
void gemma_scale(K k, F& f, uint32_t layers_of_largest) {
  const uint32_t heads = k.same_count("attention.head_count"), width = k.count("embedding_length") / std::max(1u, heads);
  put(f, "query_pre_attn_scalar", layers(k) == layers_of_largest ? width : k.count("attention.key_length", width));
}

void granite(K k, F& f) {
  take(k, "embedding_scale", f, "embedding_multiplier"), take(k, "attention.scale", f, "attention_multiplier");
  take(k, "residual_scale", f, "residual_multiplier"), take(k, "logit_scale", f, "logits_scaling");
}

void minicpm(K k, F& f) {
  const double n = std::sqrt(double(layers(k))), width = k.count("embedding_length");
  put(f, "scale_emb", k.number("embedding_scale").value_or(12));
  put(f, "scale_depth", k.number("residual_scale").value_or(1.4 / n) * n);
  put(f, "dim_model_base", width / k.number("logit_scale").value_or(width / 256));
}

void ernie_moe(K k, F& f) {
  experts(k, f, "moe_num_experts", "moe_k");
  const uint32_t own = k.count("expert_feed_forward_length", 0);
  put(f, "moe_num_shared_experts", own ? k.count("expert_shared_feed_forward_length", 0) / own : 0);
  put(f, "moe_layer_start_index", k.count("leading_dense_block_count", 0));
  put(f, "moe_layer_interval", std::max(1u, k.count("interleave_moe_layer_step", 1)));
}

void falcon(K k, F& f) {
  const bool two = has_tensor(k, "blk.0.attn_norm_2.weight");
  const uint32_t kv = k.has("attention.head_count_kv") ? k.same_count("attention.head_count_kv") : 1;
  put(f, "new_decoder_architecture", two || kv > 1), put(f, "num_ln_in_parallel_attn", two ? 2u : 1u);
  put(f, "num_kv_heads", kv), put(f, "multi_query", kv == 1);
}

void mpt(K k, F& f) {
  const double alibi = k.number("attention.max_alibi_bias").value_or(0);
  if (alibi <= 0) fail(GPTQ_E_UNSUPPORTED, "GGUF: an mpt model without ALiBi is not supported");
  JsonWriter attention;
  attention.add("alibi_bias_max", alibi);
  if (const auto clip = k.number("attention.clamp_kqv")) attention.add("clip_qkv", *clip);
  f["attn_config"] = attention.object();
  put(f, "expansion_ratio", double(k.same_count("feed_forward_length")) / k.count("embedding_length"));
}

void lfm2(K k, F& f) {
  const auto* list = k.list("attention.head_count_kv");
  if (!list) k.file().refuse(k.full("attention.head_count_kv"), "must have one entry per layer");
  f["layer_types"] = json_list(*list, [](int64_t heads) { return std::string(heads ? "\"full_attention\"" : "\"conv\""); });
  put(f, "conv_L_cache", k.count("shortconv.l_cache"));
}

void llama4(K k, F& f) {
  f["intermediate_size_mlp"] = f["intermediate_size"];
  put(f, "intermediate_size", k.same_count("expert_feed_forward_length"));
  experts(k, f, "num_local_experts");
  f.erase("moe_intermediate_size");
  put(f, "interleave_moe_layer_step", std::max(1u, k.count("interleave_moe_layer_step", 1)));
  put(f, "use_qk_norm", k.count("expert_count") != 128);
  if (const uint32_t chunk = k.count("attention.chunk_size", 0)) put(f, "attention_chunk_size", chunk);
}

void qwen3_next(K k, F& f) {
  experts(k, f, "num_experts");
  put(f, "norm_topk_prob", true);
  put(f, "shared_expert_intermediate_size", k.count("expert_shared_feed_forward_length", 0));
  const uint32_t v_heads = k.count("ssm.time_step_rank");
  put(f, "linear_num_key_heads", k.count("ssm.group_count")), put(f, "linear_num_value_heads", v_heads);
  put(f, "linear_key_head_dim", k.count("ssm.state_size")),
      put(f, "linear_value_head_dim", k.count("ssm.inner_size") / std::max(1u, v_heads));
  put(f, "linear_conv_kernel_dim", k.count("ssm.conv_kernel")), put(f, "full_attention_interval", k.count("full_attention_interval", 4));
}

void nothing(K, F&) {}
bool mixes(K k) { return k.count("expert_count", 0) > 0; }

// ---- the table ----

const std::vector<GgufFamily>& table() {
  static const std::vector<GgufFamily> list{
      {"llama", "MixtralForCausalLM", true, [](K k, F& f) { experts(k, f, "num_local_experts"); }, mixes},
      {"gemma", "GemmaForCausalLM", false, nothing},
      {"gemma2", "Gemma2ForCausalLM", false,
       [](K k, F& f) {
         put(f, "sliding_window", k.count("attention.sliding_window", 4096)), gemma_scale(k, f, 46);
         put(f, "attn_logit_softcapping", k.number("attn_logit_softcapping").value_or(50));
         put(f, "final_logit_softcapping", k.number("final_logit_softcapping").value_or(30));
       }},
      {"gemma3", "Gemma3ForCausalLM", false,
       [](K k, F& f) {
         windows(k, f), gemma_scale(k, f, 62);
         take(k, "rope.freq_base_swa", f, "rope_local_base_freq"), take(k, "final_logit_softcapping", f, "final_logit_softcapping");
         take(k, "attn_logit_softcapping", f, "attn_logit_softcapping");
       }},
      {"qwen", "QWenLMHeadModel", false, nothing},
      {"qwen2moe", "Qwen2MoeForCausalLM", false, qwen2_moe},
      {"qwen3moe", "Qwen3MoeForCausalLM", false, [](K k, F& f) { experts(k, f, "num_experts"), put(f, "norm_topk_prob", true); }},
      {"qwen3next", "Qwen3NextForCausalLM", false, qwen3_next},
      {"phi2", "PhiForCausalLM", false, nothing},
      {"phi3", "Phi3ForCausalLM", false, windows},
      {"phimoe", "PhiMoEForCausalLM", false, [](K k, F& f) { windows(k, f), experts(k, f, "num_local_experts"); }},
      {"falcon", "FalconForCausalLM", false, falcon},
      {"bloom", "BloomForCausalLM", false, [](K k, F&) { k.number("attention.max_alibi_bias"); }},
      {"gpt2", "GPT2LMHeadModel", false, nothing},
      {"gptneox", "GPTNeoXForCausalLM", false,
       [](K k, F& f) { put(f, "use_parallel_residual", k.boolean("use_parallel_residual").value_or(true)); }},
      {"starcoder", "GPTBigCodeForCausalLM", false,
       [](K k, F& f) { put(f, "multi_query", k.has("attention.head_count_kv") && k.same_count("attention.head_count_kv") == 1); }},
      {"starcoder2", "Starcoder2ForCausalLM", false, windows},
      {"mpt", "MptForCausalLM", false, mpt},
      {"stablelm", "StableLmForCausalLM", false,
       [](K k, F& f) {
         put(f, "use_parallel_residual", !has_tensor(k, "blk.0.ffn_norm.weight")),
             put(f, "qk_layernorm", has_tensor(k, "blk.0.attn_q_norm.weight"));
       }},
      {"command-r", "CohereForCausalLM", true,
       [](K k, F& f) { take(k, "logit_scale", f, "logit_scale"), put(f, "use_qk_norm", has_tensor(k, "blk.0.attn_q_norm.weight")); }},
      {"cohere2", "Cohere2ForCausalLM", true, [](K k, F& f) { take(k, "logit_scale", f, "logit_scale"), windows(k, f); }},
      {"olmo", "OlmoForCausalLM", true, [](K k, F& f) { take(k, "attention.clamp_kqv", f, "clip_qkv"); }},
      {"olmo2", "Olmo3ForCausalLM", false, windows, [](K k) { return k.count("attention.sliding_window", 0) > 0; }},
      {"olmo2", "Olmo2ForCausalLM", false, nothing},
      {"olmoe", "OlmoeForCausalLM", false, [](K k, F& f) { experts(k, f, "num_experts"), take(k, "attention.clamp_kqv", f, "clip_qkv"); }},
      {"chatglm", "ChatGLMModel", true,
       [](K k, F& f) {
         f["padded_vocab_size"] = f["vocab_size"], put(f, "rope_ratio", k.number("rope.freq_base").value_or(10000) / 10000);
       }},
      {"glm4", "Glm4ForCausalLM", true, nothing},
      {"glm4moe", "Glm4MoeForCausalLM", false,
       [](K k, F& f) {
         deepseek_experts(k, f), put(f, "use_qk_norm", has_tensor(k, "blk.0.attn_q_norm.weight"));
         put(f, "norm_topk_prob", k.boolean("expert_weights_norm").value_or(true));
       }},
      {"granite", "GraniteForCausalLM", true, granite},
      {"granitemoe", "GraniteMoeForCausalLM", true,
       [](K k, F& f) {
         if (k.count("expert_shared_feed_forward_length", 0))
           fail(GPTQ_E_UNSUPPORTED, "GGUF: a granitemoe model with shared experts is not supported");
         granite(k, f), experts(k, f, "num_local_experts");
       }},
      {"smollm3", "SmolLM3ForCausalLM", true, nothing},
      {"minicpm", "MiniCPMForCausalLM", true, minicpm},
      {"minicpm3", "MiniCPM3ForCausalLM", false,
       [](K k, F& f) { latent(k, f), put(f, "scale_emb", 12.0), put(f, "scale_depth", 1.4), put(f, "dim_model_base", 256u); }},
      {"internlm2", "InternLM2ForCausalLM", true, nothing},
      {"baichuan", "BaichuanForCausalLM", true, nothing},
      {"exaone", "ExaoneForCausalLM", false, nothing},
      {"exaone4", "Exaone4ForCausalLM", false, windows},
      {"nemotron", "NemotronForCausalLM", false, nothing},
      {"arcee", "ArceeForCausalLM", true, nothing},
      {"ernie4_5", "Ernie4_5ForCausalLM", true, nothing},
      {"ernie4_5-moe", "Ernie4_5_MoeForCausalLM", true, ernie_moe},
      {"hunyuan-dense", "HunYuanDenseV1ForCausalLM", false, nothing},
      {"hunyuan-moe", "HunYuanMoEV1ForCausalLM", false, [](K k, F& f) { experts(k, f, "num_experts", "moe_topk"); }},
      {"deepseek2", "DeepseekV3ForCausalLM", true, [](K k, F& f) { latent(k, f), deepseek_experts(k, f); },
       [](K k) { return k.count("expert_gating_func", 0) == 2; }},
      {"deepseek2", "DeepseekV2ForCausalLM", true,
       [](K k, F& f) {
         latent(k, f), deepseek_experts(k, f);
         if (k.count("expert_group_count", 1) > 1) f["topk_method"] = "\"group_limited_greedy\"";
       }},
      {"dots1", "Dots1ForCausalLM", false, [](K k, F& f) { deepseek_experts(k, f), windows(k, f); }},
      {"seed_oss", "SeedOssForCausalLM", false, nothing},
      {"apertus", "ApertusForCausalLM", false, nothing},
      {"minimax-m2", "MiniMaxM2ForCausalLM", false, [](K k, F& f) { experts(k, f, "num_local_experts"); }},
      {"lfm2", "Lfm2ForCausalLM", false, lfm2},
      {"lfm2moe", "Lfm2MoeForCausalLM", false,
       [](K k, F& f) { lfm2(k, f), experts(k, f, "num_experts"), put(f, "num_dense_layers", k.count("leading_dense_block_count", 0)); }},
      {"llama4", "Llama4ForCausalLM", true, llama4},
      {"gpt-oss", "GptOssForCausalLM", false, [](K k, F& f) { windows(k, f), experts(k, f, "num_local_experts"); }},
  };
  return list;
}

// ---- what all of them say alike ----

std::vector<float> factors_of(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find(name);
  if (!tensor) tensor = file.find("blk.0." + name);
  if (!tensor) return {};
  if (tensor->type->name != "F32") fail(GPTQ_E_FORMAT, "GGUF: tensor '", name, "' is not of type F32");
  const auto bytes = file.read(*tensor);
  std::vector<float> out(bytes.size() / sizeof(float));
  std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
  return out;
}

std::string longrope(K k, const std::vector<float>& near, const std::vector<float>& far) {
  const auto list = [](const std::vector<float>& values) { return json_list(values, [](float value) { return json_number(value); }); };
  JsonWriter out;
  out.add("rope_type", "longrope").add_raw("short_factor", list(near)).add_raw("long_factor", list(far));
  out.add("original_max_position_embeddings", k.count("rope.scaling.original_context_length", k.count("context_length")));
  if (const auto factor = k.number("rope.scaling.attn_factor"); factor && *factor > 0)
    out.add("attention_factor", *factor);
  else
    out.add("attention_factor", 1);
  return out.object();
}

FamilyKeys keys_of_class(std::string_view hf_class) {
  for (const Family& family : families())
    if (std::find(family.classes.begin(), family.classes.end(), hf_class) != family.classes.end()) return keys_of(family.model_type);
  return {};
}

F common(K k, const GgufFamily& family) {
  const GgufFile& file = k.file();
  const GgufTensor* embed = file.find("token_embd.weight");
  if (!embed || embed->dims.size() != 2 || embed->dims[1] > INT32_MAX) fail(GPTQ_E_FORMAT, "GGUF: there is no matrix 'token_embd.weight'");
  const uint32_t heads = k.same_count("attention.head_count", true), width = k.count("embedding_length");
  if (heads == 0) file.refuse(k.full("attention.head_count"), "must not be 0");
  const uint32_t d = k.count("attention.key_length", width / heads), dim = k.count("rope.dimension_count", d);
  F f;
  f["architectures"] = "[" + json_quoted(family.hf_class) + "]";
  put(f, "vocab_size", static_cast<uint32_t>(embed->dims[1]));
  put(f, "num_hidden_layers", layers(k)), put(f, "hidden_size", width), put(f, "num_attention_heads", heads), put(f, "head_dim", d);
  put(f, "num_key_value_heads", k.has("attention.head_count_kv") ? k.same_count("attention.head_count_kv", true) : heads);
  if (k.has("feed_forward_length")) put(f, "intermediate_size", k.same_count("feed_forward_length", true));
  put(f, "max_position_embeddings", k.count("context_length"));
  const auto eps =
      k.has("attention.layer_norm_rms_epsilon") ? k.number("attention.layer_norm_rms_epsilon") : k.number("attention.layer_norm_epsilon");
  if (!eps) file.refuse(k.full("attention.layer_norm_rms_epsilon"), "is missing");
  const FamilyKeys keys = keys_of_class(family.hf_class);
  put(f, std::string(keys.eps.empty() ? "rms_norm_eps" : keys.eps), double(static_cast<float>(*eps)));
  put(f, "rope_theta", k.number("rope.freq_base").value_or(10000));
  if (d == 0 || dim > d || dim % 2 != 0 || (dim < d && !keys.partial_rope)) fail(GPTQ_E_UNSUPPORTED, "GGUF: ", dim, " rotary dimensions of ", d, " are not supported");
  put(f, "partial_rotary_factor", dim == d ? 1.0 : (dim + 0.25) / d);  // rounded down to dim again
  put(f, "tie_word_embeddings", !file.find("output.weight") && !file.find("output.bias"));
  const std::vector<float> near = factors_of(file, "rope_factors_short.weight"), far = factors_of(file, "rope_factors_long.weight");
  if (!near.empty() && !far.empty())
    f["rope_scaling"] = longrope(k, near, far);
  else if (const std::string scaling = gguf_rope_scaling(k); scaling != "null")
    f["rope_scaling"] = scaling;
  return f;
}

void refuse_unread(K k) {
  for (std::string_view key :
       {"logit_scale", "residual_scale", "embedding_scale", "attention.scale", "attn_logit_softcapping", "final_logit_softcapping",
        "attention.clamp_kqv", "attention.max_alibi_bias", "expert_count"})
    if (!k.is_used(key) && k.has(key) && k.number(key).value_or(0) != 0)
      fail(GPTQ_E_UNSUPPORTED, "GGUF: the key '", k.full(key), "', which is not supported for this architecture");
}

void check_gating(K k, const format::fb::SpecT& spec) {
  using model::Score;
  const uint32_t said = k.count("expert_gating_func", 0);
  if (!spec.experts || said == 0) return;
  const auto score = static_cast<Score>(spec.experts->score);
  const bool sigmoid = score == Score::sigmoid;
  if (said > 3 || sigmoid != (said == 2))
    fail(GPTQ_E_UNSUPPORTED, "GGUF: '", k.full("expert_gating_func"), "' is ", said, ", which is not supported for this architecture");
}

// ---- names ----

using model::Role;

Layout layout_of(const GgufFile& file, const format::fb::SpecT& spec, const Layout& hf, bool pairs) {
  Layout l;
  l.names.fill("");
  l.layer = "blk.{}.", l.rope_pairs = pairs, l.ones_norms = hf.ones_norms, l.unit_head = hf.unit_head;
  constexpr std::pair<Role, const char*> names[] = {{Role::embed, "token_embd"},
                                                    {Role::positions, "position_embd"},
                                                    {Role::embed_norm, "token_embd_norm"},
                                                    {Role::final_norm, "output_norm"},
                                                    {Role::head, "output"},
                                                    {Role::attn_norm, "attn_norm"},
                                                    {Role::q, "attn_q"},
                                                    {Role::k, "attn_k"},
                                                    {Role::v, "attn_v"},
                                                    {Role::o, "attn_output"},
                                                    {Role::q_norm, "attn_q_norm"},
                                                    {Role::k_norm, "attn_k_norm"},
                                                    {Role::sinks, "attn_sinks"},
                                                    {Role::q_a, "attn_q_a"},
                                                    {Role::q_a_norm, "attn_q_a_norm"},
                                                    {Role::kv_a, "attn_kv_a_mqa"},
                                                    {Role::kv_a_norm, "attn_kv_a_norm"},
                                                    {Role::k_b, "attn_kv_b"},
                                                    {Role::v_b, "attn_kv_b"},
                                                    {Role::conv, "ssm_conv1d"},
                                                    {Role::z, "attn_gate"},
                                                    {Role::decay, "ssm_a"},
                                                    {Role::dt_bias, "ssm_dt.bias"},
                                                    {Role::delta_norm, "ssm_norm"},
                                                    {Role::conv_in, "shortconv.in_proj"},
                                                    {Role::attn_out_norm, "post_attention_norm"},
                                                    {Role::mlp_norm, "ffn_norm"},
                                                    {Role::gate, "ffn_gate"},
                                                    {Role::up, "ffn_up"},
                                                    {Role::down, "ffn_down"},
                                                    {Role::router, "ffn_gate_inp"},
                                                    {Role::router_bias, "exp_probs_b.bias"},
                                                    {Role::shared_gate, "ffn_gate_shexp"},
                                                    {Role::shared_up, "ffn_up_shexp"},
                                                    {Role::shared_down, "ffn_down_shexp"},
                                                    {Role::shared_switch, "ffn_gate_inp_shexp"},
                                                    {Role::mlp_out_norm, "post_ffw_norm"},
                                                    {Role::expert_gate, "ffn_gate"},
                                                    {Role::expert_up, "ffn_up"},
                                                    {Role::expert_down, "ffn_down"}};
  for (const auto& [role, name] : names) l[role] = name;
  const auto has = [&](const std::string& name) { return has_in_layer(file, spec.n_layers, name + ".weight"); };
  if (!spec.delta && has("attn_qkv")) l.qkv = "attn_qkv";
  if (spec.delta) l.delta_qkv = "attn_qkv";
  if (!spec.ungated && has("ffn_up") && !has("ffn_gate")) l.gate_up = "ffn_up";
  if (has("attn_norm_2")) l[Role::attn_norm] = "attn_norm_2", l[Role::mlp_norm] = "attn_norm";
  if (!has("ffn_norm") && has("post_attention_norm")) l[Role::mlp_norm] = "post_attention_norm";
  if (file.find("token_embd_norm.weight") && !file.find("output_norm.weight"))
    l[Role::final_norm] = "token_embd_norm";  // LFM2's older name
  return l;
}

// Widths as the tensors have them.
void settle_shapes(const GgufFile& file, const Layout& layout, format::fb::SpecT& spec) {
  const auto rows = [&](const std::string& name) -> uint32_t {
    for (uint32_t i = 0; i < spec.n_layers; ++i)
      if (const GgufTensor* tensor = file.find("blk." + std::to_string(i) + "." + name + ".weight"); tensor && tensor->dims.size() > 1)
        return static_cast<uint32_t>(std::min<uint64_t>(tensor->dims[1], INT32_MAX));
    return 0;
  };
  const auto settle = [](uint32_t& field, uint32_t n) {
    if (n) field = n;
  };
  settle(spec.n_ff, rows("ffn_up") / (layout.gate_up.empty() ? 1 : 2));
  if (spec.n_positions)
    if (const GgufTensor* tensor = file.find("position_embd.weight"); tensor && tensor->dims.size() > 1)
      settle(spec.n_positions, static_cast<uint32_t>(std::min<uint64_t>(tensor->dims[1], INT32_MAX)));
  if (!spec.experts) return;
  settle(spec.experts->n_ff, std::max(rows("ffn_up_exps"), rows("ffn_up.0")));
  if (spec.experts->n_ff_shared) settle(spec.experts->n_ff_shared, rows("ffn_up_shexp"));
}

}  // namespace

const std::vector<GgufFamily>& gguf_families() { return table(); }

const GgufFamily* find_gguf_family(const GgufFile& file) {
  const std::string_view name = file.string("general.architecture").value_or("");
  for (const GgufFamily& family : table())
    if (family.name == name && (!family.when || family.when(GgufKeys(file, name)))) return &family;
  return nullptr;
}

GgufModel read_gguf_family(const GgufFile& file, const GgufFamily& family) {
  const GgufKeys keys(file, family.name);
  F fields = common(keys, family);
  family.config(keys, fields);
  refuse_unread(keys);
  JsonWriter text;
  for (const auto& [key, value] : fields) text.add_raw(key, value);
  GgufModel out;
  out.config = text.object();
  const JsonDocument document("GGUF metadata", out.config);
  const Family* known = find_family(document.root());
  if (!known) fail(GPTQ_E_INTERNAL, "no family for ", family.hf_class);
  Layout hf;
  read_family(*known, document.root(), out.spec, hf);
  if (!out.spec.latent && keys.count("attention.value_length", out.spec.head_dim) != out.spec.head_dim)
    fail(GPTQ_E_UNSUPPORTED, "GGUF: keys and values of different lengths are not supported");
  check_gating(keys, out.spec);
  if (out.spec.experts && out.spec.experts->n_ff_shared == 0 && keys.count("expert_shared_feed_forward_length", 0))
    fail(GPTQ_E_UNSUPPORTED, "GGUF: '", keys.full("expert_shared_feed_forward_length"), "', which is not supported for this architecture");
  apply_gguf_factors(file, *out.spec.rope);
  out.layout = layout_of(file, out.spec, hf, family.pairs);
  settle_shapes(file, out.layout, out.spec);
  return out;
}

GgufPlace find_gguf_place(const GgufFile& file, const GgufModel& model, const format::fb::SpecT& spec, const model::SlotId& id) {
  const Layout& layout = model.layout;
  const std::string at = id.layer == model::no_index ? "" : "blk." + std::to_string(id.layer) + ".", suffix = id.bias ? ".bias" : ".weight";
  if (id.expert != model::no_index) {
    const std::string stem = at + layout[id.role];
    if (file.find(stem + "_exps" + suffix))
      return {.tensor = stem + "_exps" + suffix, .rows = {}, .slice = static_cast<int32_t>(id.expert)};
    if (const std::string both = at + "ffn_gate_up_exps" + suffix; id.role != Role::expert_down && file.find(both)) {
      GgufPlace place{.tensor = both, .rows = std::vector<uint32_t>(spec.experts->n_ff), .slice = static_cast<int32_t>(id.expert),
                      .of_rows = 2 * spec.experts->n_ff};
      std::iota(place.rows.begin(), place.rows.end(), id.role == Role::expert_gate ? 0 : spec.experts->n_ff);
      return place;
    }
    return {.tensor = stem + "." + std::to_string(id.expert) + suffix, .rows = {}};
  }
  const auto mixer =
      id.layer == model::no_index || spec.mixers.empty() ? model::Mixer::attention : static_cast<model::Mixer>(spec.mixers[id.layer]);
  Piece piece = layout.locate(spec, id, {});
  if (mixer == model::Mixer::latent) {
    const std::string own = at + (id.role == Role::k_b ? "attn_k_b" : "attn_v_b") + suffix;
    if (id.role == Role::k_b && file.find(own)) return {.tensor = own, .rows = {}, .slice = -1, .of_rows = 0, .turned = spec.n_heads};
    if (id.role == Role::v_b && file.find(own)) return {.tensor = own, .rows = {}};
    if (id.role == Role::q && spec.latent->q_rank) piece.module = at + "attn_q_b";
  }
  if (mixer == model::Mixer::short_conv && id.role == Role::conv) piece.module = at + "shortconv.conv";
  if (mixer == model::Mixer::short_conv && id.role == Role::o) piece.module = at + "shortconv.out_proj";
  if (mixer == model::Mixer::delta && id.role == Role::o) piece.module = at + "ssm_out";
  if (mixer == model::Mixer::delta && (id.role == Role::a || id.role == Role::b)) {
    piece.module = at + "ssm_ba";
    piece.rows.clear(), piece.of_rows = 2 * spec.delta->n_v;
    const uint32_t group = spec.delta->n_v / spec.delta->n_k;
    for (uint32_t i = 0; i < spec.delta->n_v; ++i)
      piece.rows.push_back(i / group * 2 * group + i % group + (id.role == Role::a ? group : 0));
  }
  GgufPlace place{.tensor = piece.module + suffix, .rows = std::move(piece.rows), .slice = -1, .of_rows = piece.of_rows};
  if (piece.raw && file.find(piece.module)) place.tensor = piece.module;
  place.negative = id.role == Role::decay;
  return place;
}

}  // namespace gptq::convert
