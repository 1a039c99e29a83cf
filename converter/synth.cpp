// SPDX-License-Identifier: Apache-2.0
#include "converter/synth.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "kernels/half.h"

namespace gptq::convert {
namespace {

struct NamedShape {
  std::string_view name, config;
};

constexpr NamedShape shapes[] = {
    {"smollm2-135m", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
      "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
      "rope_theta": 100000.0, "tie_word_embeddings": true, "hidden_act": "silu"})"},
    {"llama-1.1b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
      "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})"},
    {"llama3-8b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5,
      "rope_theta": 500000.0, "tie_word_embeddings": false, "hidden_act": "silu"})"},
    {"llama2-13b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
      "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32000, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu"})"},
    // Qwen3-30B-A3B with half its width, a third of its layers and a quarter of its vocabulary: 1.5 GB.
    {"qwen3-moe-small", R"({"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 1024, "intermediate_size": 3072,
      "moe_intermediate_size": 384, "num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": true, "decoder_sparse_step": 1,
      "mlp_only_layers": [], "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128,
      "vocab_size": 37984, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
      "tie_word_embeddings": false, "hidden_act": "silu"})"},
};

JsonDocument config_of(std::string_view shape) {
  for (const NamedShape& s : shapes)
    if (s.name == shape) return {s.name, s.config};
  std::string known;
  for (const NamedShape& s : shapes) known += std::string(s.name) + ", ";
  if (!file_exists(std::string(shape))) base::fail(GPTQ_E_NOT_FOUND, "'", shape, "' is neither ", known, "nor a config.json");
  return {"config.json", read_text(std::string(shape), 1 << 20)};
}

bool is_vocabulary(const model::Slot& slot) { return slot.id.role == model::Role::embed || slot.id.role == model::Role::head; }

class SynthSource final : public ModelSource {
 public:
  SynthSource(std::string_view shape, const SynthOptions& options) : options_(options) {
    const JsonDocument config = config_of(shape);
    HfModel model = read_config(config.root());
    description_.spec = std::move(model.spec);
    description_.meta = {{"name", std::string(shape)}, {"source", "random weights of this shape, for measuring speed"}};
    if (model.family) description_.meta.emplace_back("config", kept_config(config.root()));
  }

  const ModelDescription& description() const override { return description_; }

  Weight load(const model::Slot& slot) override {
    if (slot.is_vector && !slot.required) return {};  // biases
    if (slot.is_vector) return vector(slot);
    const uint32_t bits = is_vocabulary(slot) ? options_.head_bits : slot.quantizable() ? options_.bits : 16;
    return bits == 16 ? Weight(dense(slot)) : Weight(quantized(slot, bits));
  }

 private:
  DenseWeight vector(const model::Slot& slot) {
    std::vector<float> values(slot.n, 1.0f);
    const auto fill = [&](auto value_at) {
      for (uint32_t i = 0; i < slot.n; ++i) values[i] = value_at(i);
    };
    using model::Role;
    switch (slot.id.role) {
      case Role::router_bias: case Role::sinks: fill([](uint32_t) { return 0.0f; }); break;
      case Role::decay: fill([&](uint32_t i) { return static_cast<float>(i + 1) / static_cast<float>(slot.n); }); break;
      case Role::dt_bias: fill([](uint32_t) { return -2.0f; }); break;
      case Role::conv: fill([&](uint32_t) { return static_cast<float>(static_cast<int16_t>(random_() >> 15)) / 32768; }); break;
      case Role::act_params: values = {0.2027f, -1.0502f, 0.5f, -1e-6f}; break;  // as transformers begins training
      default: break;  // norms
    }
    DenseWeight weight{kernels::Kind::f32, std::vector<std::byte>(slot.n * sizeof(float))};
    std::memcpy(weight.bytes.data(), values.data(), weight.bytes.size());
    return weight;
  }

  // Uniform weights of variance 1/k keep activations near 1 through the layers.
  DenseWeight dense(const model::Slot& slot) {
    DenseWeight weight{kernels::Kind::f16, std::vector<std::byte>(uint64_t{slot.n} * slot.k * sizeof(uint16_t))};
    const float step = std::sqrt(3.0f / static_cast<float>(slot.k)) / 32768;
    for (uint64_t i = 0; i < uint64_t{slot.n} * slot.k; ++i) {
      const uint16_t half = kernels::half_from_float(step * static_cast<float>(static_cast<int16_t>(random_() >> 15)));
      std::memcpy(weight.bytes.data() + i * sizeof half, &half, sizeof half);
    }
    return weight;
  }

  QuantizedWeight quantized(const model::Slot& slot, uint32_t bits) {
    QuantizedWeight weight;
    weight.bits = bits;
    weight.group_size = options_.group_size;
    weight.n_groups = options_.group_size < 0 ? 1 : (slot.k + static_cast<uint32_t>(options_.group_size) - 1) / static_cast<uint32_t>(options_.group_size);
    weight.codes.resize(uint64_t{slot.n} * slot.k);
    for (uint8_t& code : weight.codes) code = static_cast<uint8_t>(random_() >> (31 - bits));
    const float scale = std::sqrt(3.0f / static_cast<float>(slot.k)) / static_cast<float>(1u << (bits - 1));
    weight.scales.assign(uint64_t{slot.n} * weight.n_groups, kernels::float_from_half(kernels::half_from_float(scale)));
    return weight;
  }

  SynthOptions options_;
  ModelDescription description_;
  std::minstd_rand random_{1};  // 31 bits a number
};

void check(bool holds, std::string_view rule) {
  if (!holds) base::fail(GPTQ_E_INVALID_ARGUMENT, rule);
}

}  // namespace

std::unique_ptr<ModelSource> make_synth(std::string_view shape, const SynthOptions& options) {
  const auto one_of = [](uint32_t bits, std::initializer_list<uint32_t> list) { return std::find(list.begin(), list.end(), bits) != list.end(); };
  check(one_of(options.bits, {2, 3, 4, 8, 16}), "--bits is 2, 3, 4, 8 or 16");
  check(one_of(options.head_bits, {4, 8, 16}), "--head-bits is 4, 8 or 16");
  check(options.group_size == -1 || (options.group_size > 0 && options.group_size <= 1 << 20), "--group-size is -1 or above 0");
  return std::make_unique<SynthSource>(shape, options);
}

}  // namespace gptq::convert
