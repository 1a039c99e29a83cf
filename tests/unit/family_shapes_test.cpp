// SPDX-License-Identifier: Apache-2.0
// What a family's config says against what its tensors are: fused ones are as long as all their parts, and keys of other families say nothing.
#include <cstdlib>

#include "converter/hf/config.h"
#include "converter/json_writer.h"
#include "export_fixture.h"
#include "tests/unit/checked_spec.h"

namespace gptq::test {
namespace {

using namespace convert;

// A Phi-3 of one layer: four heads of 16, two of keys, all fused.
class Fused : public QuantizedCheckpoint {
 public:
  explicit Fused(const std::string& heads = R"("num_attention_heads":4,"num_key_value_heads":2)") {
    config = R"({"architectures":["Phi3ForCausalLM"],"hidden_size":64,"intermediate_size":96,"num_hidden_layers":1,"vocab_size":32,"max_position_embeddings":64,)" + heads;
    tensors.clear();
    add("model.embed_tokens", 32, 64), add("lm_head", 32, 64), add("model.norm", 64, 0);
    const std::string layer = "model.layers.0.";
    add(layer + "self_attn.qkv_proj", 128, 64), add(layer + "self_attn.o_proj", 64, 64), add(layer + "mlp.gate_up_proj", 192, 64);
    add(layer + "mlp.down_proj", 64, 96), add(layer + "input_layernorm", 64, 0), add(layer + "post_attention_layernorm", 64, 0);
  }
};

TEST(FamilyShapes, FusedRowsAreAllThere) {
  Fused().run();
  const std::string qkv = "model.layers.0.self_attn.qkv_proj", quant = R"(,"quantization_config":{"quant_method":"gptq","bits":4,"group_size":32})";
  const struct {
    const char *heads, *wanted;
  } cases[] = {{R"("num_attention_heads":4,"num_key_value_heads":1)", "96"},
               {R"("num_attention_heads":4,"num_key_value_heads":4)", "192"},
               {R"("num_attention_heads":8,"num_key_value_heads":2)", "96"},
               {R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":8)", "64"}};
  for (const auto& c : cases) {
    EXPECT_REFUSED(Fused(c.heads).run(), "'" + qkv + ".weight' is F16 [128, 64] where config.json wants F16 [" + c.wanted + ", 64]");
    Fused packed(c.heads);
    quantize(packed.tensors, qkv, {4, 32});
    EXPECT_REFUSED(packed.run(quant), "'" + qkv + ".scales' is F16 [2, 128] where [2, " + c.wanted + "] belongs by config.json");
  }
  Fused biased;
  biased.add(qkv, 160, 0);
  biased.tensors[qkv + ".bias"] = biased.tensors[qkv + ".weight"];
  biased.add(qkv, 128, 64);
  EXPECT_REFUSED(biased.run(), "'" + qkv + ".bias' is F16 [160] where config.json wants F16 [128]");
  Fused odd;
  odd.add("model.layers.0.mlp.gate_up_proj", 193, 64);
  EXPECT_REFUSED(odd.run(), "gate_up_proj.weight' is F16 [193, 64] where config.json wants F16 [192, 64]");
}

// One layer with two experts in tensors of three dimensions, and biases of all of them.
class Experts : public QuantizedCheckpoint {
 public:
  explicit Experts(const std::string& n_experts = "2") {
    config = R"({"architectures":["GptOssForCausalLM"],"hidden_size":64,"intermediate_size":32,"num_hidden_layers":1,"vocab_size":32,"max_position_embeddings":64,)"
             R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,"num_experts_per_tok":1,"num_local_experts":)" + n_experts;
    tensors.clear();
    add("model.embed_tokens", 32, 64), add("lm_head", 32, 64), add("model.norm", 64, 0);
    const std::string layer = "model.layers.0.";
    for (const auto& [name, n] : {std::pair("q_proj", 64), {"k_proj", 32}, {"v_proj", 32}, {"o_proj", 64}})
      add(layer + "self_attn." + name, n, 64), plain(layer + "self_attn." + name + ".bias", {uint64_t(n)});
    plain(layer + "self_attn.sinks", {4});
    add(layer + "input_layernorm", 64, 0), add(layer + "post_attention_layernorm", 64, 0);
    add(layer + "mlp.router", 2, 64), plain(layer + "mlp.router.bias", {2});
    plain(layer + "mlp.experts.gate_up_proj", {2, 64, 64}), plain(layer + "mlp.experts.gate_up_proj_bias", {2, 64});
    plain(layer + "mlp.experts.down_proj", {2, 32, 64}), plain(layer + "mlp.experts.down_proj_bias", {2, 64});
  }
  void plain(const std::string& name, const std::vector<uint64_t>& shape) {
    uint64_t n = 1;
    for (const uint64_t size : shape) n *= size;
    add("made", n, 0);
    tensors[name] = {"F16", shape, tensors["made.weight"].bytes};
    tensors.erase("made.weight");
  }
};

TEST(FamilyShapes, ExpertsInOneTensor) {
  Experts whole;
  whole.run();
  EXPECT_FALSE(whole.warned("left out"));
  Experts more;
  more.plain("model.layers.0.mlp.experts.other_bias", {2});
  more.run();
  EXPECT_TRUE(more.warned("1 tensor is not part of this kind of model and left out: model.layers.0.mlp.experts.other_bias"));
  const std::string at = "model.layers.0.mlp.experts.";
  const auto changed = [&](const std::string& name, const std::vector<uint64_t>& shape) {
    Experts other;
    other.plain(at + name, shape);
    return failure_of([&] { other.run(); });
  };
  EXPECT_NE(changed("gate_up_proj", {3, 64, 64}).find("gate_up_proj' is F16 [3, 64, 64] where config.json wants F16 [2, 64, 64]"), std::string::npos);
  EXPECT_NE(changed("down_proj", {2, 32, 96}).find("down_proj' is F16 [2, 32, 96] where config.json wants F16 [2, 32, 64]"), std::string::npos);
  EXPECT_NE(changed("down_proj_bias", {2, 96}).find("down_proj_bias' is F16 [2, 96] where config.json wants F16 [2, 64]"), std::string::npos);
  EXPECT_NE(changed("gate_up_proj_bias", {3, 64}).find("gate_up_proj_bias' is F16 [3, 64] where config.json wants F16 [2, 64]"), std::string::npos);
}

// Recurrent layers have four projections in one; half of any of these counts would do for a part of it.
TEST(FamilyShapes, RecurrentProjections) {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  const std::filesystem::path original = std::filesystem::path(golden ? golden : "tests/golden") / "families/qwen3-next-w4-g32";
  const JsonDocument config = JsonDocument::read((original / "config.json").string(), "config.json", 1 << 20);
  for (const char* key : {"linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim", "num_key_value_heads", "num_attention_heads", "head_dim"}) {
    const TemporaryFolder work;
    for (const auto& entry : std::filesystem::directory_iterator(original))
      if (entry.path().extension() == ".safetensors") std::filesystem::copy_file(entry.path(), work.file(entry.path().filename().string()));
    JsonWriter out;
    for (const auto field : config.root().fields())
      out.add_raw(field.key, field.key == key ? std::to_string(config.root().count(key) / 2) : simdjson::minify(field.value));
    work.write("config.json", out.object());
    const std::string said = failure_of([&] { load_all(*open_source(work.path(), {})); });
    EXPECT_NE(said.find("where"), std::string::npos) << key << ": " << said;
  }
}

TEST(FamilyShapes, KeysOfOtherFamiliesSayNothing) {
  const std::pair<const char*, const char*> strays[] = {{"num_key_value_heads", "1"}, {"num_kv_heads", "1"}, {"multi_query_group_num", "1"}, {"head_dim", "8"}, {"kv_channels", "8"},
                                                       {"rms_norm_eps", "0.5"}, {"layer_norm_eps", "0.5"}, {"layer_norm_epsilon", "0.5"}, {"norm_eps", "0.5"},
                                                       {"norm_epsilon", "0.5"}, {"layernorm_epsilon", "0.5"}, {"hidden_act", "\"silu\""}, {"activation", "\"silu\""},
                                                       {"activation_function", "\"silu\""}, {"n_layers", "1"}, {"num_layers", "1"}, {"n_heads", "1"}, {"num_heads", "1"},
                                                       {"partial_rotary_factor", "0.75"}, {"rotary_pct", "0.75"}};
  const struct {
    const char *name, *own;  // of the strays
  } classes[] = {{"GPTNeoXForCausalLM", "layer_norm_eps hidden_act partial_rotary_factor rotary_pct"},
                 {"GPT2LMHeadModel", "layer_norm_epsilon activation_function"},
                 {"GPTJForCausalLM", "layer_norm_epsilon activation_function"},
                 {"CodeGenForCausalLM", "layer_norm_epsilon activation_function"},
                 {"GPTBigCodeForCausalLM", "layer_norm_epsilon activation_function"},
                 {"OPTForCausalLM", "activation_function"},
                 {"BloomForCausalLM", "layer_norm_epsilon"},
                 {"MptForCausalLM", "layer_norm_epsilon"},
                 {"FalconForCausalLM", "layer_norm_epsilon activation"},
                 {"PersimmonForCausalLM", "layer_norm_eps hidden_act partial_rotary_factor"},
                 {"PhiForCausalLM", "layer_norm_eps hidden_act num_key_value_heads head_dim partial_rotary_factor"},
                 {"CohereForCausalLM", "layer_norm_eps num_key_value_heads head_dim"},
                 {"Starcoder2ForCausalLM", "norm_epsilon hidden_act num_key_value_heads head_dim"},
                 {"NemotronForCausalLM", "norm_eps hidden_act num_key_value_heads head_dim partial_rotary_factor"},
                 {"Phi3ForCausalLM", "rms_norm_eps num_key_value_heads head_dim partial_rotary_factor"}};
  for (const auto& c : classes) {
    const auto spec_of = [&](const std::string& more) {
      const JsonDocument document("config.json", "{\"architectures\":[\"" + std::string(c.name) +
                                                     R"("],"vocab_size":64,"hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"max_position_embeddings":64)" + more + "}");
      flatbuffers::FlatBufferBuilder builder;
      const HfModel model = read_config(document.root());
      builder.Finish(format::fb::Spec::Pack(builder, &model.spec));
      return std::string(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
    };
    const std::string own = " " + std::string(c.own) + " ", plain = spec_of("");
    for (const auto& [key, value] : strays) {
      const bool heard = own.find(" " + std::string(key) + " ") != own.npos;
      EXPECT_EQ(spec_of(std::string(",\"") + key + "\":" + value) != plain, heard) << c.name << ": " << key;
    }
  }
}

}  // namespace
}  // namespace gptq::test
