// SPDX-License-Identifier: Apache-2.0
// A config.json of a family, random weights written as llama.cpp's converter writes them: the import gives the spec that the config gives,
// and every weight where it was.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "base/failure.h"
#include "converter/gguf/gguf_source.h"
#include "converter/hf/config.h"
#include "tests/frugal.h"
#include "tests/unit/checked_spec.h"

namespace gptq::test {
namespace {

using namespace convert;
using model::Role;
using Floats = std::vector<float>;

enum : uint32_t {
  pairs = 1,
  fused_qkv = 2,
  fused_gate_up = 4,
  one_by_one = 8,
  split_kv_b = 16,
  no_norms = 32,
  two_norms = 64,
  mlp_norm_is_post = 128
};

struct Case {
  const char *architecture, *config;
  uint32_t how;
  std::map<std::string, double> keys;
  double freq_base = 10000;
};

class Writer {
 public:
  void text(const std::string& key, const std::string& value) { begin(key, 8), put_text(values_, value); }
  void number(const std::string& key, double value) {
    const bool whole = value == static_cast<double>(static_cast<uint32_t>(value));
    begin(key, whole ? 4 : 6);
    numbers.push_back(24 + values_.size());
    if (whole)
      put(values_, static_cast<uint32_t>(value));
    else
      put(values_, static_cast<float>(value));
  }
  void list(const std::string& key, const std::vector<int32_t>& items) {
    begin(key, 9), put(values_, uint32_t{5}), put(values_, uint64_t{items.size()});
    for (const int32_t item : items) put(values_, item);
  }
  void tensor(const std::string& name, const std::vector<uint64_t>& dims, const Floats& values) {
    put_text(infos_, name), put(infos_, static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) put(infos_, dim);
    put(infos_, uint32_t{0}), put(infos_, uint64_t{data_.size()});
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    data_.resize((data_.size() + 31) / 32 * 32);
    ++n_tensors_;
  }
  std::vector<size_t> numbers;  // where the file has them
  std::string file() const {
    std::string out;
    put(out, uint32_t{0x46554747}), put(out, uint32_t{3}), put(out, n_tensors_), put(out, n_keys_);
    out += values_ + infos_;
    out.resize((out.size() + 31) / 32 * 32);
    return out + data_;
  }

 private:
  template <class T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static void put_text(std::string& out, const std::string& value) { put(out, uint64_t{value.size()}), out += value; }
  void begin(const std::string& key, uint32_t type) { put_text(values_, key), put(values_, type), ++n_keys_; }
  std::string values_, infos_, data_;
  uint64_t n_tensors_ = 0, n_keys_ = 0;
};

class Text final : public base::Source {
 public:
  explicit Text(std::string text) : text_(std::move(text)) {}
  uint64_t size() const override { return text_.size(); }
  void read_at(uint64_t offset, std::span<std::byte> out) const override {
    ASSERT_LE(offset + out.size(), text_.size());
    if (!out.empty()) std::memcpy(out.data(), text_.data() + offset, out.size());
  }

 private:
  std::string text_;
};

std::string packed(const format::fb::SpecT& spec) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(format::fb::Spec::Pack(builder, &spec));
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

std::pmr::vector<model::Slot> slots_of(const format::fb::SpecT& spec) {
  const std::string bytes = packed(spec);
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
  return model::weight_slots(model::check_spec(*flatbuffers::GetRoot<format::fb::Spec>(bytes.data()), memory), memory);
}

// What each family has biases at is as its config says; here matrices that were fused have some, which is enough.
bool is_written(const Case& c, const model::Slot& slot) {
  if (slot.id.bias) return (c.how & fused_qkv) && (slot.id.role == Role::q || slot.id.role == Role::k || slot.id.role == Role::v);
  return !((c.how & no_norms) && slot.is_vector);
}

class Model {
 public:
  Model(const Case& c, const format::fb::SpecT& spec) : c_(c), spec_(spec) {
    std::minstd_rand random(7);
    for (const model::Slot& slot : slots_of(spec)) {
      if (!is_written(c, slot)) continue;
      Floats& values = weights[std::string(slot.name)];
      for (uint64_t i = 0; i < uint64_t{slot.n} * slot.k; ++i) values.push_back(static_cast<float>(random() % 65536) / 65536 - 0.5f);
    }
    keys();
    for (const model::Slot& slot : slots_of(spec))
      if (is_written(c, slot)) write(slot);
  }
  std::map<std::string, Floats> weights;
  std::string file() const { return out_.file(); }
  const std::vector<size_t>& numbers() const { return out_.numbers; }

 private:
  void keys() {
    const std::string a = std::string(c_.architecture) + ".";
    out_.text("general.architecture", c_.architecture);
    std::map<std::string, double> all = {
        {"block_count", spec_.n_layers},
        {"context_length", spec_.n_ctx_train},
        {"embedding_length", spec_.n_embd},
        {"attention.head_count", spec_.n_heads},
        {"feed_forward_length", spec_.n_ff},
        {"rope.freq_base", c_.freq_base},
        {"attention.key_length", spec_.head_dim},
        {"attention.value_length", spec_.head_dim},
        {spec_.norm == 0 ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", spec_.norm_eps}};
    if (!spec_.rope->inv_freq.empty()) all["rope.dimension_count"] = 2.0 * static_cast<double>(spec_.rope->inv_freq.size());
    if (spec_.conv_kernel) {
      std::vector<int32_t> kv;
      for (const uint8_t mixer : spec_.mixers) kv.push_back(mixer == 0 ? static_cast<int32_t>(spec_.n_kv_heads) : 0);
      out_.list(a + "attention.head_count_kv", kv);
    } else {
      all["attention.head_count_kv"] = spec_.n_kv_heads;
    }
    if (spec_.experts)
      all["expert_count"] = spec_.experts->n, all["expert_used_count"] = spec_.experts->n_active,
      all["expert_feed_forward_length"] = spec_.experts->n_ff;
    if (spec_.experts && spec_.experts->n_ff_shared) all["expert_shared_feed_forward_length"] = spec_.experts->n_ff_shared;
    for (const auto& [key, value] : c_.keys) all[key] = value;
    for (const auto& [key, value] : all) out_.number(a + key, value);
    if (!spec_.rope->long_inv_freq.empty()) {
      out_.tensor("rope_factors_short.weight", {4}, {1, 1, 1.5f, 2}), out_.tensor("rope_factors_long.weight", {4}, {1, 2, 3.25f, 4});
    }
  }

  const Floats& of(const std::string& layer, const char* name) const { return weights.at(layer + name); }

  // Rows (j, j + dim/2) of every head, behind `first`, to pairs.
  static void pair(Floats& rows, size_t width, size_t d, size_t first, size_t dim) {
    const Floats before = rows;
    for (size_t head = 0; head < rows.size() / width; head += d)
      for (size_t j = 0; j < dim; ++j)
        std::copy_n(before.begin() + static_cast<std::ptrdiff_t>((head + first + j % 2 * (dim / 2) + j / 2) * width), width,
                    rows.begin() + static_cast<std::ptrdiff_t>((head + first + j) * width));
  }

  void write(const model::Slot& slot) {
    static const std::map<Role, std::string> names = {{Role::embed, "token_embd"},
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
                                                      {Role::q_a, "attn_q_a"},
                                                      {Role::q_a_norm, "attn_q_a_norm"},
                                                      {Role::kv_a, "attn_kv_a_mqa"},
                                                      {Role::kv_a_norm, "attn_kv_a_norm"},
                                                      {Role::k_b, "attn_k_b"},
                                                      {Role::v_b, "attn_v_b"},
                                                      {Role::conv, "shortconv.conv"},
                                                      {Role::conv_in, "shortconv.in_proj"},
                                                      {Role::attn_out_norm, "post_attention_norm"},
                                                      {Role::mlp_norm, "ffn_norm"},
                                                      {Role::gate, "ffn_gate"},
                                                      {Role::up, "ffn_up"},
                                                      {Role::down, "ffn_down"},
                                                      {Role::router, "ffn_gate_inp"},
                                                      {Role::router_bias, "exp_probs_b"},
                                                      {Role::shared_gate, "ffn_gate_shexp"},
                                                      {Role::shared_up, "ffn_up_shexp"},
                                                      {Role::shared_down, "ffn_down_shexp"},
                                                      {Role::shared_switch, "ffn_gate_inp_shexp"},
                                                      {Role::mlp_out_norm, "post_ffw_norm"},
                                                      {Role::expert_gate, "ffn_gate"},
                                                      {Role::expert_up, "ffn_up"},
                                                      {Role::expert_down, "ffn_down"}};
    const std::string layer = slot.in_layer() ? "layers." + std::to_string(slot.id.layer) + "." : "",
                      at = slot.in_layer() ? "blk." + std::to_string(slot.id.layer) + "." : "";
    std::string name = names.at(slot.id.role);
    const std::string suffix = slot.id.bias || slot.id.role == Role::router_bias ? ".bias" : ".weight";
    Floats values = weights.at(std::string(slot.name));
    const Role role = slot.id.role;
    const size_t d = spec_.head_dim, width = slot.is_vector ? 1 : slot.k;
    const bool conv = spec_.conv_kernel && slot.in_layer() && spec_.mixers[slot.id.layer] == static_cast<uint8_t>(model::Mixer::short_conv);
    if (conv && role == Role::o) name = "shortconv.out_proj";
    if (c_.how & two_norms) name = role == Role::attn_norm ? "attn_norm_2" : role == Role::mlp_norm ? "attn_norm" : name;
    if ((c_.how & mlp_norm_is_post) && role == Role::mlp_norm) name = "post_attention_norm";

    if (slot.id.expert != model::no_index) {
      if (c_.how & one_by_one) return out_.tensor(at + name + "." + std::to_string(slot.id.expert) + suffix, {slot.k, slot.n}, values);
      Floats& all = stacks_[at + name];
      all.insert(all.end(), values.begin(), values.end());
      if (slot.id.expert + 1 == spec_.experts->n) out_.tensor(at + name + "_exps.weight", {slot.k, slot.n, spec_.experts->n}, all);
      return;
    }
    if (spec_.latent) {
      const auto& m = *spec_.latent;
      if (role == Role::q) pair(values, width, d, m.d_nope, m.d_rope), name = m.q_rank ? "attn_q_b" : name;
      if (role == Role::kv_a) pair(values, width, m.kv_rank + m.d_rope, m.kv_rank, m.d_rope);
      if (role == Role::k_b && (c_.how & split_kv_b)) {  // every head transposed
        const Floats before = values;
        for (size_t h = 0; h < spec_.n_heads; ++h)
          for (size_t i = 0; i < m.d_nope; ++i)
            for (size_t j = 0; j < m.kv_rank; ++j) values[(h * m.kv_rank + j) * m.d_nope + i] = before[(h * m.d_nope + i) * m.kv_rank + j];
        return out_.tensor(at + "attn_k_b.weight", {m.d_nope, m.kv_rank, spec_.n_heads}, values);
      }
      if (role == Role::v_b && (c_.how & split_kv_b)) return out_.tensor(at + "attn_v_b.weight", {m.kv_rank, m.d_v, spec_.n_heads}, values);
      if (role == Role::k_b) return;
      if (role == Role::v_b) {  // [head][k, v]
        Floats both;
        const Floats& k = of(layer, "k_b");
        for (size_t h = 0; h < spec_.n_heads; ++h) {
          both.insert(both.end(), k.begin() + static_cast<std::ptrdiff_t>(h * m.d_nope * m.kv_rank),
                      k.begin() + static_cast<std::ptrdiff_t>((h + 1) * m.d_nope * m.kv_rank));
          both.insert(both.end(), values.begin() + static_cast<std::ptrdiff_t>(h * m.d_v * m.kv_rank),
                      values.begin() + static_cast<std::ptrdiff_t>((h + 1) * m.d_v * m.kv_rank));
        }
        return out_.tensor(at + "attn_kv_b.weight", {m.kv_rank, both.size() / m.kv_rank}, both);
      }
    } else if (!conv) {
      const size_t dim = 2 * spec_.rope->inv_freq.size();
      if ((c_.how & pairs) && (role == Role::q || role == Role::k || role == Role::q_norm || role == Role::k_norm))
        pair(values, width, d, 0, dim);
      if ((c_.how & fused_qkv) && (role == Role::q || role == Role::k || role == Role::v)) {
        Floats& all = stacks_[at + "qkv" + suffix];
        all.insert(all.end(), values.begin(), values.end());
        if (role == Role::v)
          out_.tensor(at + "attn_qkv" + suffix,
                      slot.is_vector ? std::vector<uint64_t>{all.size()} : std::vector<uint64_t>{width, all.size() / width}, all);
        return;
      }
      if ((c_.how & fused_gate_up) && (role == Role::gate || role == Role::up)) {
        Floats& all = stacks_[at + "gate_up"];
        all.insert(all.end(), values.begin(), values.end());
        if (role == Role::up) out_.tensor(at + "ffn_up.weight", {width, all.size() / width}, all);
        return;
      }
    }
    if (slot.is_vector) return out_.tensor(at + name + suffix, {values.size()}, values);
    out_.tensor(at + name + suffix, {slot.k, slot.n}, values);
  }

  const Case& c_;
  const format::fb::SpecT& spec_;
  std::map<std::string, Floats> stacks_;
  Writer out_;
};

// SIZES: what all configs here have.
#define SIZES(CLASS) R"({"architectures":[")" CLASS R"("],"vocab_size":40,"num_hidden_layers":2,"hidden_size":32,"num_attention_heads":4,)"

const std::vector<Case>& cases() {
  static const std::vector<Case> list = {
      {"llama",
       SIZES(
           "MixtralForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"num_local_experts":4,"num_experts_per_tok":2,"rms_norm_eps":1e-5})",
       pairs,
       {}},
      {"llama",
       SIZES(
           "MixtralForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"num_local_experts":4,"num_experts_per_tok":2,"rms_norm_eps":1e-5})",
       pairs | one_by_one,
       {}},
      {"gemma",
       SIZES("GemmaForCausalLM") R"("num_key_value_heads":1,"head_dim":16,"intermediate_size":64,"hidden_act":"gelu_pytorch_tanh"})",
       0,
       {}},
      {"gemma2",
       SIZES(
           "Gemma2ForCausalLM") R"("num_key_value_heads":2,"head_dim":16,"intermediate_size":64,"sliding_window":16,"query_pre_attn_scalar":16,"attn_logit_softcapping":50,"final_logit_softcapping":30})",
       0,
       {{"attention.sliding_window", 16}, {"attn_logit_softcapping", 50}, {"final_logit_softcapping", 30}}},
      {"gemma3",
       SIZES(
           "Gemma3ForCausalLM") R"("num_key_value_heads":2,"head_dim":16,"intermediate_size":64,"sliding_window":16,"query_pre_attn_scalar":16,"rope_theta":1e6,"rope_local_base_freq":10000,"rope_scaling":{"rope_type":"linear","factor":8}})",
       0,
       {{"attention.sliding_window", 16}, {"rope.scaling.factor", 8}},
       1e6},
      {"qwen", SIZES("QWenLMHeadModel") R"("intermediate_size":128})", fused_qkv, {{"feed_forward_length", 128}}},
      {"qwen2moe",
       SIZES(
           "Qwen2MoeForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":32,"shared_expert_intermediate_size":64})",
       0,
       {}},
      {"qwen3moe",
       SIZES(
           "Qwen3MoeForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"num_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":32,"norm_topk_prob":true})",
       0,
       {}},
      {"phi2", SIZES("PhiForCausalLM") R"("intermediate_size":64,"partial_rotary_factor":0.5})", 0, {}},
      {"phi3",
       SIZES(
           "Phi3ForCausalLM") R"("intermediate_size":64,"max_position_embeddings":256,"original_max_position_embeddings":32,"rope_scaling":{"rope_type":"longrope","short_factor":[1,1,1.5,2],"long_factor":[1,2,3.25,4],"attention_factor":1.25}})",
       fused_qkv | fused_gate_up,
       {{"rope.scaling.original_context_length", 32}, {"rope.scaling.attn_factor", 1.25}}},
      {"falcon", SIZES("FalconForCausalLM") R"("new_decoder_architecture":false,"multi_query":true,"parallel_attn":true})", fused_qkv, {}},
      {"falcon", SIZES("FalconForCausalLM") R"("new_decoder_architecture":true,"num_kv_heads":2})", fused_qkv | two_norms, {}},
      {"bloom", SIZES("BloomForCausalLM") R"("seq_length":64})", fused_qkv, {}},
      {"gpt2", SIZES("GPT2LMHeadModel") R"("n_positions":64})", fused_qkv, {}},
      {"gptneox",
       SIZES("GPTNeoXForCausalLM") R"("intermediate_size":64,"rotary_pct":0.5,"use_parallel_residual":true})",
       fused_qkv,
       {{"use_parallel_residual", 1}}},
      {"starcoder", SIZES("GPTBigCodeForCausalLM") R"("multi_query":true,"n_positions":64})", fused_qkv, {}},
      {"starcoder2", SIZES("Starcoder2ForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64})", 0, {}},
      {"stablelm",
       SIZES(
           "StableLmForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"use_parallel_residual":true,"qk_layernorm":true,"partial_rotary_factor":0.25})",
       0,
       {}},
      {"command-r",
       SIZES("CohereForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"use_qk_norm":true,"logit_scale":0.25})",
       pairs,
       {{"logit_scale", 0.25}}},
      {"olmo", SIZES("OlmoForCausalLM") R"("intermediate_size":64,"clip_qkv":8})", pairs | no_norms, {{"attention.clamp_kqv", 8}}},
      {"olmo2", SIZES("Olmo2ForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64})", 0, {}},
      {"glm4",
       SIZES("Glm4ForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"partial_rotary_factor":0.5})",
       pairs | fused_gate_up,
       {}},
      {"glm4moe",
       SIZES(
           "Glm4MoeForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"partial_rotary_factor":0.5,"use_qk_norm":true,"n_routed_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":32,"n_shared_experts":1,"first_k_dense_replace":1,"routed_scaling_factor":1.5})",
       mlp_norm_is_post,
       {{"expert_weights_scale", 1.5},
        {"expert_weights_norm", 1},
        {"leading_dense_block_count", 1},
        {"expert_gating_func", 2},
        {"expert_shared_count", 1}}},
      {"granite",
       SIZES(
           "GraniteForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"embedding_multiplier":12,"attention_multiplier":0.125,"residual_multiplier":0.25,"logits_scaling":8})",
       pairs,
       {{"embedding_scale", 12}, {"attention.scale", 0.125}, {"residual_scale", 0.25}, {"logit_scale", 8}}},
      {"smollm3", SIZES("SmolLM3ForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64})", pairs, {}},
      {"deepseek2",
       SIZES(
           "DeepseekV2ForCausalLM") R"("intermediate_size":64,"kv_lora_rank":16,"q_lora_rank":null,"qk_nope_head_dim":8,"qk_rope_head_dim":4,"v_head_dim":6,"n_routed_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":32,"n_shared_experts":2,"first_k_dense_replace":1})",
       0,
       {{"attention.kv_lora_rank", 16},
        {"attention.value_length", 6},
        {"rope.dimension_count", 4},
        {"expert_shared_count", 2},
        {"leading_dense_block_count", 1},
        {"expert_gating_func", 1}}},
      {"deepseek2",
       SIZES(
           "DeepseekV3ForCausalLM") R"("intermediate_size":64,"kv_lora_rank":16,"q_lora_rank":24,"qk_nope_head_dim":8,"qk_rope_head_dim":4,"v_head_dim":6,"n_routed_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":32,"n_shared_experts":1,"first_k_dense_replace":1,"n_group":2,"topk_group":1,"routed_scaling_factor":2.5,"norm_topk_prob":true})",
       split_kv_b,
       {{"attention.kv_lora_rank", 16},
        {"attention.q_lora_rank", 24},
        {"attention.head_count_kv", 1},
        {"attention.key_length", 20},
        {"attention.value_length", 16},
        {"attention.key_length_mla", 12},
        {"attention.value_length_mla", 6},
        {"rope.dimension_count", 4},
        {"expert_shared_count", 1},
        {"leading_dense_block_count", 1},
        {"expert_gating_func", 2},
        {"expert_group_count", 2},
        {"expert_group_used_count", 1},
        {"expert_weights_scale", 2.5},
        {"expert_weights_norm", 1}}},
      {"lfm2",
       SIZES(
           "Lfm2ForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64,"layer_types":["conv","full_attention"],"conv_L_cache":3})",
       0,
       {{"shortconv.l_cache", 3}}},
      {"exaone", SIZES("ExaoneForCausalLM") R"("num_key_value_heads":2,"intermediate_size":64})", 0, {}},
  };
  return list;
}

format::fb::SpecT spec_of(const Case& c) {
  const JsonDocument config("config.json", c.config);
  return read_config(config.root()).spec;
}

void expect_same(const Case& c) {
  format::fb::SpecT spec = spec_of(c);
  const Model written(c, spec);
  spec.tied_head = !written.weights.contains("head");
  const auto source = open_gguf(std::make_unique<Text>(written.file()), "tiny.gguf", {});
  const format::fb::SpecT& read = source->description().spec;
  EXPECT_TRUE(packed(read) == packed(spec));
  for (const model::Slot& slot : slots_of(spec)) {
    const Weight weight = source->load(slot);
    const auto* dense = std::get_if<DenseWeight>(&weight);
    ASSERT_EQ(dense != nullptr, is_written(c, slot) || ((c.how & no_norms) && slot.is_vector && !slot.id.bias)) << slot.name;
    if (!dense || !is_written(c, slot)) continue;
    const Floats& expected = written.weights.at(std::string(slot.name));
    ASSERT_EQ(dense->bytes.size(), expected.size() * sizeof(float)) << slot.name;
    EXPECT_EQ(std::memcmp(dense->bytes.data(), expected.data(), dense->bytes.size()), 0) << slot.name;
  }
}

TEST(GgufFamilies, SameAsTheirConfig) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(std::string(c.architecture) + " " + c.config);
    try {
      expect_same(c);
    } catch (const base::Failure& failure) {
      ADD_FAILURE() << failure.detail.message;
    }
  }
}

// Sizes are not believed before they are checked, against the file and by what is supported.
TEST(GgufFamilies, HugeNumbersCostNothing) {
  double slowest = 0;
  int64_t largest = 0;
  for (const Case& c : cases()) {
    const Model written(c, spec_of(c));
    const std::string whole = written.file();
    for (const size_t at : written.numbers())
      for (const uint32_t value : {0u, 1u, 511u, 1024u, 4096u, 65536u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
        std::string file = whole;
        std::memcpy(file.data() + at, &value, sizeof value);
        const Cost cost = cost_of([&] {
          try {
            load_all(*open_gguf(std::make_unique<base::MemorySource>(std::as_bytes(std::span(file))), "tiny.gguf", {}));
          } catch (const base::Failure& failure) {
            EXPECT_NE(failure.detail.status, GPTQ_E_INTERNAL) << failure.detail.message;
          }
        });
        slowest = std::max(slowest, cost.ms);
        largest = std::max(largest, cost.bytes - 2 * static_cast<int64_t>(file.size()));
        EXPECT_LT(cost.ms, hostile_ms_max) << c.architecture << ", byte " << at << " = " << value;
        EXPECT_LT(cost.bytes, 2 * static_cast<int64_t>(file.size()) + hostile_bytes_max) << c.architecture << ", byte " << at << " = " << value;
      }
  }
  std::printf("the slowest %.1f ms, memory at most twice the file and %.1f KiB\n", slowest, static_cast<double>(largest) / 1024);
}

// The same of config.json: its sizes are looked at before there is a file of tensors.
TEST(Families, HugeNumbersInConfigsCostNothing) {
  for (const Case& c : cases())
    for (const std::string_view huge : {"2147483647", "65536", "0"}) {
      const std::string whole = c.config;
      for (size_t at = whole.find(':'); at != whole.npos; at = whole.find(':', at + 1)) {
        const size_t end = whole.find_first_not_of("0123456789", at + 1);
        if (end == at + 1) continue;
        std::string config = whole;
        config.replace(at + 1, end - at - 1, huge);
        const Cost cost = cost_of([&] {
          try {
            const JsonDocument document("config.json", config);
            read_config(document.root());
          } catch (const base::Failure&) {
          }
        });
        EXPECT_LT(cost.ms, hostile_ms_max) << config;
        EXPECT_LT(cost.bytes, hostile_bytes_max) << config;
      }
    }
}

TEST(GgufFamilies, ScalesOfAnotherFamilyAreRefused) {
  for (Case c : cases()) {
    if (std::string_view(c.architecture) != "starcoder2") continue;
    c.keys["logit_scale"] = 0.25;
    const Model written(c, spec_of(c));
    try {
      open_gguf(std::make_unique<Text>(written.file()), "tiny.gguf", {});
      ADD_FAILURE() << "it is read";
    } catch (const base::Failure& failure) {
      EXPECT_NE(std::string_view(failure.detail.message).find("starcoder2.logit_scale"), std::string_view::npos) << failure.detail.message;
    }
  }
}

// Keys that a family cannot have: each is refused by its name.
TEST(GgufFamilies, KeysThatCannotBe) {
  struct Row {
    const char *architecture, *key;
    double value;
    gptq_status status;
    const char* words;
  };
  const Row rows[] = {
      {"llama", "attention.head_count", 0, GPTQ_E_FORMAT, "'llama.attention.head_count' must not be 0"},
      {"llama", "rope.dimension_count", 7, GPTQ_E_UNSUPPORTED, "7 rotary dimensions of 8 are not supported"},
      {"llama", "attention.value_length", 32, GPTQ_E_UNSUPPORTED, "keys and values of different lengths are not supported"},
      {"qwen3moe", "expert_gating_func", 2, GPTQ_E_UNSUPPORTED, "'qwen3moe.expert_gating_func' is 2"},
      {"qwen3moe", "expert_gating_func", 9, GPTQ_E_UNSUPPORTED, "'qwen3moe.expert_gating_func' is 9"},
      {"qwen3moe", "expert_shared_feed_forward_length", 64, GPTQ_E_UNSUPPORTED, "'qwen3moe.expert_shared_feed_forward_length', which is not supported"},
  };
  for (const Row& row : rows) {
    bool found = false;
    for (Case c : cases()) {
      if (std::string_view(c.architecture) != row.architecture || found) continue;
      found = true;
      c.keys[row.key] = row.value;
      const Model written(c, spec_of(c));
      try {
        open_gguf(std::make_unique<Text>(written.file()), "tiny.gguf", {});
        ADD_FAILURE() << row.key << " is read";
      } catch (const base::Failure& failure) {
        EXPECT_EQ(failure.detail.status, row.status) << failure.detail.message;
        EXPECT_NE(std::string_view(failure.detail.message).find(row.words), std::string_view::npos) << failure.detail.message;
      }
    }
    EXPECT_TRUE(found) << row.architecture;
  }
}

}  // namespace
}  // namespace gptq::test
