// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "converter/hf/family_parts.h"

namespace gptq::convert {
namespace {

using namespace family;
using base::fail;

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
         layer_norms(s), parallel_one_norm(s), ungated(c, s, "gelu_new");
         l[Role::o] = "self_attn.dense", l[Role::final_norm] = "model.final_layernorm", l[Role::up] = "mlp.fc1", l[Role::down] = "mlp.fc2";
         if (c.boolean("qk_layernorm", false)) head_norms(s, Span::head, NormKind::layer), l[Role::q_norm] = "self_attn.q_layernorm", l[Role::k_norm] = "self_attn.k_layernorm";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("partial_rotary_factor") || c.has("rope_parameters") ? std::nullopt : std::optional(0.5)});
       }},
      {"gpt_neox", {"GPTNeoXForCausalLM"}, "GPT-NeoX, Pythia", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu");
         if (c.boolean("use_parallel_residual", true)) s.residual = u8(Residual::parallel);
         l.layer = "gpt_neox.layers.{}.", l[Role::embed] = "gpt_neox.embed_in", l[Role::final_norm] = "gpt_neox.final_layer_norm", l[Role::head] = "embed_out";
         l.qkv = "attention.query_key_value", l.order = Fused::grouped, l[Role::o] = "attention.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
         set_rope(c, s, {.section = {}, .theta = {}, .part = c.has("rotary_pct") || c.has("partial_rotary_factor") || c.has("rope_parameters") ? std::nullopt : std::optional(0.25)});
       }},
      {"gptj", {"GPTJForCausalLM"}, "GPT-J", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), ungated(c, s, "gelu_new", "activation_function"), gpt_names(l);
         l[Role::q] = "attn.q_proj", l[Role::k] = "attn.k_proj", l[Role::v] = "attn.v_proj", l[Role::o] = "attn.out_proj", l[Role::up] = "mlp.fc_in", l[Role::down] = "mlp.fc_out";
         l.rope_pairs = true;
         set_rope(c, s, {.section = {}, .theta = 10000, .part = (c.count("rotary_dim", 64) + 0.25) / s.head_dim});
       }},
      {"codegen", {"CodeGenForCausalLM"}, "CodeGen", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), parallel_one_norm(s), ungated(c, s, "gelu_new", "activation_function"), gpt_names(l);
         l.qkv = "attn.qkv_proj", l.order = Fused::codegen, l[Role::o] = "attn.out_proj", l[Role::up] = "mlp.fc_in", l[Role::down] = "mlp.fc_out";
         l.rope_pairs = true;
         set_rope(c, s, {.section = {}, .theta = 10000, .part = (c.count("rotary_dim", 64) + 0.25) / s.head_dim});
       }},
      {"gpt2", {"GPT2LMHeadModel"}, "GPT-2", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu_new", "activation_function"), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
         l[Role::positions] = "transformer.wpe", l.qkv = "attn.c_attn", l[Role::o] = "attn.c_proj", l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj", l.transposed = true;
         if (!c.boolean("scale_attn_weights", true)) s.attention_scale = 1;
         if (c.boolean("scale_attn_by_inverse_layer_idx", false))
           for (uint32_t i = 0; i < s.n_layers; ++i) s.attention_scales.push_back(s.attention_scale / f32(i + 1));
       }},
      {"gpt_bigcode", {"GPTBigCodeForCausalLM"}, "StarCoder, SantaCoder", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu_new", "activation_function"), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
         l[Role::positions] = "transformer.wpe", l.qkv = "attn.c_attn", l[Role::o] = "attn.c_proj", l[Role::up] = "mlp.c_fc", l[Role::down] = "mlp.c_proj";
         if (!c.boolean("scale_attn_weights", true)) s.attention_scale = 1;
         const bool multi_query = c.boolean("multi_query", true);
         s.n_kv_heads = multi_query ? 1 : s.n_heads;
         l.order = multi_query ? Fused::concat : Fused::grouped;
       }},
      {"gpt_neo", {"GPTNeoForCausalLM"}, "GPT-Neo", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu_new", "activation_function"), gpt_names(l), learned_positions(s, 0), tied_by_default(c, s);
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
         layer_norms(s), ungated(c, s, "relu", "activation_function"), learned_positions(s, 2), tied_by_default(c, s);
         const bool before = c.boolean("do_layer_norm_before", true);
         if (!before) s.residual = u8(Residual::norm_after_add);
         l.ones_norms = !c.boolean("layer_norm_elementwise_affine", true);
         s.norms = before && !c.boolean("_remove_final_layer_norm", false) ? Norms::attn | Norms::mlp | Norms::final : Norms::attn | Norms::mlp;
         s.n_embed = c.count("word_embed_proj_dim", s.n_embd);
         const std::string at = "model.decoder.";
         l.layer = at + "layers.{}.", l[Role::embed] = at + "embed_tokens", l[Role::positions] = at + "embed_positions", l[Role::final_norm] = at + "final_layer_norm";
         l[Role::embed_proj] = at + "project_in", l[Role::head_proj] = at + "project_out", l[Role::attn_norm] = "self_attn_layer_norm", l[Role::mlp_norm] = "final_layer_norm";
         l[Role::o] = "self_attn.out_proj", l[Role::up] = "fc1", l[Role::down] = "fc2";
       }},
      {"bloom", {"BloomForCausalLM"}, "BLOOM", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu_new", ""), use_alibi(s), tied_by_default(c, s);
         s.norms = Norms::attn | Norms::mlp | Norms::final | Norms::embed;
         if (c.boolean("apply_residual_connection_post_layernorm", false)) s.residual = u8(Residual::from_norm);
         s.n_ff = 4 * s.n_embd;
         l.layer = "transformer.h.{}.", l[Role::embed] = "transformer.word_embeddings", l[Role::embed_norm] = "transformer.word_embeddings_layernorm", l[Role::final_norm] = "transformer.ln_f";
         l.qkv = "self_attention.query_key_value", l.order = Fused::grouped, l[Role::o] = "self_attention.dense", l[Role::up] = "mlp.dense_h_to_4h", l[Role::down] = "mlp.dense_4h_to_h";
       }},
      {"falcon", {"FalconForCausalLM", "RWForCausalLM"}, "Falcon", falcon},
      {"mpt", {"MptForCausalLM", "MPTForCausalLM"}, "MPT", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu", ""), tied_by_default(c, s);
         s.n_ff = static_cast<uint32_t>(c.number("expansion_ratio", 4) * s.n_embd);
         const auto attention = c.object("attn_config");
         use_alibi(s, attention ? attention->number("alibi_bias_max", 8) : 8);
         if (attention) s.clip_qkv = f32(attention->number("clip_qkv", 0));
         if (attention && attention->has("softmax_scale")) s.attention_scale = f32(attention->number("softmax_scale", 1));
         l.layer = "transformer.blocks.{}.", l[Role::embed] = "transformer.wte", l[Role::final_norm] = "transformer.norm_f", l[Role::attn_norm] = "norm_1", l[Role::mlp_norm] = "norm_2";
         l.qkv = "attn.Wqkv", l[Role::o] = "attn.out_proj", l[Role::up] = "ffn.up_proj", l[Role::down] = "ffn.down_proj";
       }},
      {"starcoder2", {"Starcoder2ForCausalLM"}, "StarCoder2", [](C c, SpecT& s, Layout& l) {
         layer_norms(s), ungated(c, s, "gelu_new"), tied_by_default(c, s), window_everywhere(c, s);
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
         layer_norms(s), ungated(c, s, "relu2");
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
         layer_norms(s), ungated(c, s, "relu2");
         l.plus_one = true;
         if (!c.has("partial_rotary_factor") && !c.has("rope_percent") && !c.has("rope_parameters")) set_rope(c, s, {.section = {}, .theta = {}, .part = 0.5});
       }},
      {"helium", {"HeliumForCausalLM"}, "Helium", [](C, SpecT&, Layout& l) { l.rope_pairs = true; }},
      {"arcee", {"ArceeForCausalLM"}, "Arcee", [](C c, SpecT& s, Layout&) { ungated(c, s, "relu2"); }},
      {"apertus", {"ApertusForCausalLM"}, "Apertus", [](C c, SpecT& s, Layout& l) {
         ungated(c, s, "xielu"), head_norms(s, Span::head);
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

bool is_any(std::string_view name, std::initializer_list<std::string_view> names) { return std::find(names.begin(), names.end(), name) != names.end(); }

bool same_name(std::string_view name, std::string_view known) { return name == known; }

}  // namespace

const std::vector<Family>& families() { return table(); }

FamilyKeys keys_of(std::string_view type) {
  FamilyKeys keys;
  if (type == "mpt") keys.layers = "n_layers", keys.width = "d_model", keys.heads = "n_heads";
  if (type == "gpt_neo") keys.layers = "num_layers", keys.heads = "num_heads";
  if (is_any(type, {"chatglm", "exaone"})) keys.layers = "num_layers";
  if (type == "bloom") keys.width = "n_embed";
  if (type == "chatglm") keys.kv_heads = "multi_query_group_num";
  if (is_any(type, {"chatglm", "qwen"})) keys.head_dim = "kv_channels";
  const bool plain_heads = is_any(type, {"gpt_neox", "gptj", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "opt", "bloom", "falcon", "mpt", "persimmon", "baichuan"});
  if (plain_heads) keys.head_dim = "";
  if (plain_heads || type == "qwen") keys.kv_heads = "";  // Falcon reads its own
  if (is_any(type, {"phi", "gpt_neox", "stablelm", "persimmon", "cohere", "cohere2"})) keys.eps = "layer_norm_eps";
  if (is_any(type, {"gptj", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "bloom", "falcon", "mpt", "qwen", "exaone"})) keys.eps = "layer_norm_epsilon";
  if (type == "starcoder2") keys.eps = "norm_epsilon";
  if (is_any(type, {"nemotron", "lfm2", "lfm2_moe"})) keys.eps = "norm_eps";
  if (type == "chatglm") keys.eps = "layernorm_epsilon";
  if (is_any(type, {"opt", "olmo"})) keys.eps = "";
  keys.partial_rope = is_any(type, {"phi", "phi3", "gpt_neox", "gptj", "codegen", "stablelm", "persimmon", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "nemotron", "minimax_m2", "qwen3_next",
                                    "qwen3_5_text", "qwen3_5_moe_text", "qwen", "chatglm", "deepseek_v2", "deepseek_v3", "minicpm3"});
  if (is_any(type, {"gpt_neox", "qwen"})) keys.rope_part = "rotary_pct";
  if (type == "stablelm") keys.rope_part = "rope_pct";
  if (is_any(type, {"gptj", "codegen", "gpt2", "gpt_bigcode", "gpt_neo", "opt", "exaone"})) keys.activation = "activation_function";
  if (type == "falcon") keys.activation = "activation";
  if (is_any(type, {"bloom", "mpt", "chatglm", "qwen", "gemma2", "gemma3_text", "lfm2", "lfm2_moe", "gpt_oss"})) keys.activation = "";
  return keys;
}

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
  const std::string_view name = class_of(config);
  for (const auto& matches : {same_name, same_class, is_body_of})
    for (const Family& family : families())
      if (std::any_of(family.classes.begin(), family.classes.end(), [&](std::string_view known) { return matches(name, known); })) return &family;
  // A model with eyes is of a class of its own; what its text part is the part itself says.
  const bool has_eyes = name.ends_with("ForConditionalGeneration") && config.object("text_config");
  const auto type = text.string("model_type");
  return type && (name.empty() || has_eyes) ? of_type(*type) : nullptr;
}

void read_family(const Family& family, const JsonObject& config, SpecT& s, Layout& layout) {
  const JsonObject c = text_config(config);
  const FamilyKeys keys = keys_of(family.model_type);
  s.n_vocab = first_count(c, {"padded_vocab_size", "vocab_size"}).value_or(family.model_type == "gemma3_text" ? 262208 : 0);
  s.n_layers = first_count(c, {"num_hidden_layers", keys.layers}).value_or(0);
  s.n_embd = first_count(c, {"hidden_size", keys.width}).value_or(0);
  s.n_heads = first_count(c, {"num_attention_heads", keys.heads}).value_or(family.model_type == "gemma3_text" ? 8 : 0);
  for (const auto& [value, key] : {std::pair{s.n_vocab, "vocab_size"}, {s.n_layers, "num_hidden_layers"}, {s.n_embd, "hidden_size"}, {s.n_heads, "num_attention_heads"}})
    if (value == 0) c.refuse(key, "is missing");
  s.n_kv_heads = first_count(c, {keys.kv_heads}).value_or(s.n_heads);
  s.head_dim = first_count(c, {keys.head_dim}).value_or(std::max(1u, s.n_embd / s.n_heads));
  s.n_ff = first_count(c, {"intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "feed_forward_length"}).value_or(4 * s.n_embd);
  s.n_ctx_train = first_count(c, {"max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "model_max_length", "n_ctx"}).value_or(2048);
  const std::string_view old_eps = family.model_type == "stablelm" ? "norm_eps" : "";
  s.norm_eps = f32(first_number(c, {keys.eps, old_eps}, default_eps(family.model_type)));
  check_sizes(c.where(), s);
  s.attention_scale = f32(1 / std::sqrt(double(s.head_dim)));
  s.tied_head = c.boolean("tie_word_embeddings", config.boolean("tie_word_embeddings", false));
  s.activation = u8(Activation::silu);
  if (const auto act = c.string(keys.activation)) use_activation(c, s, *act);
  family.read(c, s, layout);
  check_sizes(c.where(), s);
  if (!s.rope) set_rope(c, s, {.section = "full_attention"});
  if (s.rope->dynamic_factor > 0) s.n_ctx_train = static_cast<uint32_t>(std::min(double(model::n_ctx_max), s.n_ctx_train * double(s.rope->dynamic_factor)));
}

}  // namespace gptq::convert
