// SPDX-License-Identifier: Apache-2.0
// config.json, generation_config.json and chat templates: what they map to, and what is refused.
#include <cmath>

#include "converter/dialects/quant_config.h"
#include "converter/hf/config.h"
#include "converter/hf/metadata.h"
#include "converter_fixture.h"
#include "tests/unit/tokenizer_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;

// A config of a small model; extra: further members, starting with a comma.
std::string config_text(const std::string& architecture, const std::string& extra = "") {
  return R"({"architectures":[")" + architecture +
         R"("],"hidden_size":64,"intermediate_size":96,"num_hidden_layers":4,)"
         R"("num_attention_heads":4,"vocab_size":777,"hidden_act":"silu")" +
         extra + "}";
}

HfModel model_of(const std::string& text) { return read_config(JsonDocument("config.json", text).root()); }

TEST(HfConfig, LlamaDefaults) {
  const HfModel m = model_of(config_text("LlamaForCausalLM"));
  EXPECT_EQ(m.spec.n_vocab, 777u);
  EXPECT_EQ(m.spec.n_kv_heads, 4u);
  EXPECT_EQ(m.spec.head_dim, 16u);
  EXPECT_EQ(m.spec.n_ctx_train, 2048u);
  EXPECT_FLOAT_EQ(m.spec.norm_eps, 1e-6f);
  EXPECT_FLOAT_EQ(m.spec.attention_scale, 0.25f);
  EXPECT_FALSE(m.spec.tied_head || m.spec.qk_norm || m.attention_bias || m.mlp_bias);
  EXPECT_EQ(m.spec.window, 0u);
}

TEST(HfConfig, Fields) {
  const HfModel m = model_of(config_text("LlamaForCausalLM",
                                         R"(,"num_key_value_heads":2,"head_dim":24,"max_position_embeddings":512,"rms_norm_eps":1e-5,)"
                                         R"("tie_word_embeddings":true,"attention_bias":true,"mlp_bias":true,"rope_theta":5e5)"));
  EXPECT_EQ(m.spec.n_kv_heads, 2u);
  EXPECT_EQ(m.spec.head_dim, 24u);
  EXPECT_EQ(m.spec.n_ctx_train, 512u);
  EXPECT_TRUE(m.spec.tied_head && m.attention_bias && m.mlp_bias);
  EXPECT_FLOAT_EQ(m.spec.rope->theta, 5e5f);
}

TEST(HfConfig, ClassDefaultsOfKeyValueHeads) {
  EXPECT_EQ(model_of(config_text("MistralForCausalLM", R"(,"num_key_value_heads":null,"sliding_window":null)")).spec.n_kv_heads, 4u);
  EXPECT_EQ(model_of(config_text("MistralForCausalLM")).spec.n_kv_heads, 8u);
}

TEST(HfConfig, Windows) {
  EXPECT_EQ(model_of(config_text("MistralForCausalLM")).spec.window, 4096u);  // the class's default
  EXPECT_EQ(model_of(config_text("MistralForCausalLM", R"(,"sliding_window":null)")).spec.window, 0u);
  const HfModel every = model_of(config_text("MistralForCausalLM", R"(,"sliding_window":16)"));
  EXPECT_EQ(every.spec.window, 16u);
  EXPECT_TRUE(every.spec.windowed_layers.empty());
  EXPECT_EQ(model_of(config_text("Qwen2ForCausalLM", R"(,"sliding_window":16,"use_sliding_window":false)")).spec.window, 0u);
  const HfModel from = model_of(config_text("Qwen2ForCausalLM", R"(,"sliding_window":16,"use_sliding_window":true,"max_window_layers":3)"));
  EXPECT_EQ(from.spec.windowed_layers, (std::vector<uint8_t>{0, 0, 0, 1}));
  const HfModel listed = model_of(config_text(
      "Qwen3ForCausalLM",
      R"(,"sliding_window":16,"use_sliding_window":true,"layer_types":[)"
      R"("sliding_attention","full_attention","full_attention","sliding_attention"])"));
  EXPECT_EQ(listed.spec.windowed_layers, (std::vector<uint8_t>{1, 0, 0, 1}));
}

TEST(HfConfig, Qwen) {
  const HfModel two = model_of(config_text("Qwen2ForCausalLM", R"(,"num_key_value_heads":2)")),
                three = model_of(config_text("Qwen3ForCausalLM", R"(,"num_key_value_heads":2)"));
  EXPECT_TRUE(two.attention_bias);
  EXPECT_FALSE(two.spec.qk_norm);
  EXPECT_TRUE(three.spec.qk_norm);
  EXPECT_EQ(three.spec.head_dim, 128u);
}

TEST(HfConfig, RefusesWhatWouldChangeResults) {
  EXPECT_REFUSED(model_of(config_text("GrokForCausalLM")), "'GrokForCausalLM' is not supported; these are: LlamaForCausalLM, ");
  EXPECT_REFUSED(model_of(R"({"hidden_size":1})"), "architectures");
  for (const char* extra :
       {R"("attn_logit_softcapping":50.0)", R"("num_local_experts":8)", R"("embedding_multiplier":12)", R"("logits_scaling":8.0)",
        R"("is_causal":false)", R"("layer_types":["full_attention","full_attention","sliding_attention","full_attention"])",
        R"("use_qk_norm":true)"})
    EXPECT_REFUSED(model_of(config_text("LlamaForCausalLM", "," + std::string(extra))), "is not supported and would change");
  EXPECT_NO_THROW(model_of(config_text(
      "LlamaForCausalLM",
      R"(,"attn_logit_softcapping":null,"num_local_experts":0,"embedding_multiplier":1.0,"use_qk_norm":false,"is_causal":true)")));
  EXPECT_REFUSED(model_of(R"({"architectures":["LlamaForCausalLM"],"hidden_act":"gelu"})"), "hidden_act 'gelu'");
}

TEST(HfConfig, ClassOrModelType) {
  const auto class_of = [](const std::string& fields) {
    const JsonDocument config("config.json", "{" + fields + "}");
    if (const Architecture* found = find_architecture(config.root())) return found->name;
    if (const Family* family = find_family(config.root())) return family->classes.at(0);
    refuse_architecture(config.root());
  };
  EXPECT_EQ(class_of(R"("model_type":"llama")"), "LlamaForCausalLM");
  for (const char* none : {"null", "[]", "[null]"})
    EXPECT_EQ(class_of(R"("architectures":)" + std::string(none) + R"(,"model_type":"qwen2")"), "Qwen2ForCausalLM") << none;
  EXPECT_EQ(class_of(R"("architectures":"MistralForCausalLM")"), "MistralForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":["LLaMAForCausalLM"])"), "LlamaForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":["Qwen3ForCausalLM"],"model_type":"llama")"), "Qwen3ForCausalLM");  // the class is what was trained
  EXPECT_EQ(class_of(R"("architectures":null,"model_type":"mixtral")"), "MixtralForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":"MixtralForCausalLM")"), "MixtralForCausalLM");
  EXPECT_REFUSED(class_of(R"("model_type":"bert")"), "'bert' is not supported");
  EXPECT_REFUSED(class_of(R"("architectures":["BitnetForCausalLM"],"model_type":"llama")"), "'BitnetForCausalLM' is not supported");
  EXPECT_REFUSED(class_of(R"("architectures":["LlamaForSequenceClassification"],"model_type":"llama")"), "is not supported");
  EXPECT_EQ(class_of(R"("architectures":["mixtral_for_causal_lm"],"model_type":"other")"), "MixtralForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":["LlamaModel"],"model_type":"llama")"), "LlamaForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":["GPT2Model"])"), "GPT2LMHeadModel");
  EXPECT_EQ(class_of(R"("architectures":["Gemma3TextModel"])"), "Gemma3ForCausalLM");
  EXPECT_EQ(class_of(R"("architectures":["OddEyesForConditionalGeneration"],"text_config":{"model_type":"ministral3"})"), "Ministral3ForCausalLM");
  for (const char* name : {"MixtralForSequenceClassification", "MixtralForTokenClassification", "MixtralForQuestionAnswering", "MixtralDraft",
                           "OddEyesForConditionalGeneration", "Mixtral"})
    EXPECT_REFUSED(class_of("\"architectures\":[\"" + std::string(name) + R"("],"model_type":"mixtral")"), "is not supported");
  EXPECT_REFUSED(class_of(R"("model_type":1)"), "must be a string");
  EXPECT_REFUSED(class_of(""), "model_type");
}

// Numbers of any size are JSON to Python; who asks for one gets a sentence.
TEST(HfConfig, HugeNumbers) {
  for (const char* value : {"1000000000000000019884624838656", "-1000000000000000019884624838656", "1e400", "-1e400", "[1e999,{\"a\":1e400}]"}) {
    EXPECT_EQ(model_of(config_text("LlamaForCausalLM", R"(,"model_max_length":)" + std::string(value) + R"(,"head_dim":24)")).spec.head_dim, 24u) << value;
    EXPECT_REFUSED(model_of(config_text("LlamaForCausalLM", R"(,"head_dim":)" + std::string(value))), "'head_dim' must be a whole number");
  }
  const JsonDocument document("d", R"({"a":"1e400, \" 99999999999999999999999999","b":1e400,"c":12.5e1,"d":99999999999999999999999999})");
  EXPECT_EQ(document.root().string("a"), "1e400, \" 99999999999999999999999999");
  EXPECT_EQ(document.root().number("c"), 125.0);
  EXPECT_EQ(document.root().number("d"), 1e26);
  EXPECT_REFUSED(JsonDocument("d", R"({"a":1e400,"b":01})"), "no valid JSON");
}

TEST(HfConfig, ByteOrderMark) {
  const TemporaryFolder folder;
  folder.write("config.json", "\xEF\xBB\xBF{\"a\":1}");
  EXPECT_EQ(JsonDocument::read(folder.file("config.json"), "config.json", 64).root().integer("a"), 1);
}

// What Python's json writes beside JSON's numbers.
TEST(HfConfig, NotANumber) {
  for (const char* value : {"NaN", "Infinity", "-Infinity", R"([NaN,{"NaN":-Infinity},"\"NaN"])"}) {
    const HfModel m = model_of(config_text("LlamaForCausalLM", R"(,"attention_dropout":)" + std::string(value) + R"(,"head_dim":24)"));
    EXPECT_EQ(m.spec.head_dim, 24u) << value;
  }
  const JsonDocument document("d", R"({"a":"NaN, \" Infinity","b":NaN})");
  EXPECT_EQ(document.root().string("a"), "NaN, \" Infinity");
  for (const char* value : {"NaN", "Infinity", "-Infinity"}) {
    const auto with = [&](const std::string& key) { return model_of(config_text("LlamaForCausalLM", ",\"" + key + "\":" + value)); };
    EXPECT_REFUSED(with("rms_norm_eps"), "'rms_norm_eps' must be a number");
    EXPECT_REFUSED(with("head_dim"), "'head_dim' must be a whole number");
    EXPECT_REFUSED(with("final_logit_softcapping"), "would change");
  }
  for (const char* value : {"nan", "-NaN", "+Infinity", "Inf", "NaN1"})
    EXPECT_REFUSED(JsonDocument("d", R"({"a":)" + std::string(value) + "}"), "no valid JSON");
}

TEST(HfConfig, SaysWhatElseAFileIs) {
  EXPECT_REFUSED(JsonDocument("config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n"),
                 "'config.json' is a git-lfs pointer");
  EXPECT_REFUSED(JsonDocument("config.json", "<!DOCTYPE html>"), "'config.json' is a web page");
}

TEST(HfConfig, RefusesNonsense) {
  // Sizes that would cost memory or time before the model's own checks see them.
  EXPECT_REFUSED(model_of(config_text("LlamaForCausalLM", R"(,"head_dim":2147483647)")), "head_dim");
  EXPECT_REFUSED(model_of(R"({"architectures":["LlamaForCausalLM"],"vocab_size":9,"num_hidden_layers":2147483647})"), "num_hidden_layers");
  EXPECT_REFUSED(model_of("{"), "no valid JSON");
  EXPECT_REFUSED(model_of("[]"), "must be an object");
  EXPECT_REFUSED(model_of(R"({"a":1,"a":2})"), "twice");
  EXPECT_REFUSED(model_of(R"({"a":{"b":[{"c":1,"c":2}]}})"), "twice");
  EXPECT_REFUSED(model_of("{\"a\":" + std::string(80, '[') + std::string(80, ']') + "}"), "no valid JSON");
  EXPECT_REFUSED(model_of(R"({"architectures":["LlamaForCausalLM"]})"), "'vocab_size' is missing");
  for (const char* value : {"0", "-1", "1.5", "\"6 4\"", "\"64x\"", "\"\"", "1e30", "4294967296", "99999999999999999999", "true"})
    EXPECT_REFUSED(model_of(config_text("LlamaForCausalLM", ",\"head_dim\":" + std::string(value))), "config.json");
}

// As programs write them that keep numbers as text or as reals, and methods in capitals.
TEST(HfConfig, OtherSpellings) {
  for (const char* value : {"24", "24.0", "2.4e1", "\"24\"", "\"24.0\""})
    EXPECT_EQ(model_of(config_text("LlamaForCausalLM", ",\"head_dim\":" + std::string(value))).spec.head_dim, 24u) << value;
  for (const char* value : {"1e-3", "0.001", "\"1e-3\""})
    EXPECT_EQ(model_of(config_text("LlamaForCausalLM", ",\"rms_norm_eps\":" + std::string(value))).spec.norm_eps, 1e-3f) << value;
  for (const char* value : {"true", "1", "1.0", "\"true\"", "\"True\""})
    EXPECT_TRUE(model_of(config_text("LlamaForCausalLM", ",\"tie_word_embeddings\":" + std::string(value))).spec.tied_head) << value;
  for (const char* value : {"2", "\"yes\"", "[]"})
    EXPECT_REFUSED(model_of(config_text("LlamaForCausalLM", ",\"tie_word_embeddings\":" + std::string(value))), "must be true or false");
  const JsonDocument document("q", R"({"quantization_config":{"quant_method":"GPTQ","checkpoint_format":"GPTQ_V2","bits":"4","group_size":128.0,"desc_act":0}})");
  const TemporaryFolder empty;
  const auto quant = read_quant_config(empty.path(), document.root());
  ASSERT_TRUE(quant);
  EXPECT_EQ(quant->settings.bits, 4u);
  EXPECT_EQ(quant->settings.group_size, 128);
  EXPECT_TRUE(quant->v2_zeros);
}

// Frequencies of transformers 5.23 for head_dim 16 and 256 positions.
struct RopeCase {
  const char* fields;
  std::vector<float> inv_freq;
  float scale;
};

TEST(HfRope, SameAsTransformers) {
  const std::vector<float> plain{
      1, 0.316227764f, 0.100000001f, 0.0316227786f, 0.00999999978f, 0.00316227786f, 0.00100000005f, 0.000316227786f};
  const RopeCase cases[] = {
      {R"("rope_type":"default","rope_theta":10000.0)", plain, 1},
      {R"("type":"linear","factor":2.5)",
       {0.400000006f, 0.1264911f, 0.0399999991f, 0.0126491114f, 0.00399999972f, 0.00126491114f, 0.000400000019f, 0.000126491112f},
       1},
      {R"("rope_type":"dynamic","rope_theta":10000.0,"factor":4.0)", plain, 1},
      {R"("rope_type":"llama3","rope_theta":500000.0,"factor":8.0,"low_freq_factor":1.0,)"
      R"("high_freq_factor":4.0,"original_max_position_embeddings":64)",
       {1, 0.079403013f, 0.00470075384f, 0.000911583134f, 0.000176776681f, 3.42810235e-05f, 6.64786967e-06f, 1.28917316e-06f},
       1},
      {R"("rope_type":"yarn","rope_theta":10000.0,"factor":4.0,"original_max_position_embeddings":64)",
       {1, 0.237170815f, 0.049999997f, 0.00790569466f, 0.00249999994f, 0.000790569466f, 0.000250000012f, 7.90569466e-05f},
       1.13862944f},
      {R"("rope_type":"yarn","rope_theta":1000000.0,"factor":4.0,"original_max_position_embeddings":32768,)"
      R"("beta_fast":24,"beta_slow":2,"mscale":0.707,"mscale_all_dim":0.5,"truncate":false)",
       {1, 0.177827939f, 0.0316227786f, 0.00562341325f, 0.000539274886f, 4.44569851e-05f, 7.90569356e-06f, 1.40585337e-06f},
       1.02683615f},
      {R"("rope_type":"yarn","rope_theta":150000.0,"factor":32.0,"attention_factor":1.25)",
       {1, 0.152626768f, 0.0179963671f, 0.000357944577f, 8.0687154e-05f, 1.8188337e-05f, 4.09997847e-06f, 9.24208962e-07f},
       1.25f},
  };
  for (const RopeCase& c : cases)
    for (const char* key : {"rope_parameters", "rope_scaling"}) {
      const std::string text = "{\"" + std::string(key) + "\":{" + c.fields + "}}";
      const auto rope = read_rope(JsonDocument("config.json", text).root(), 16, 256);
      ASSERT_EQ(rope.inv_freq.size(), c.inv_freq.size());
      for (size_t j = 0; j < c.inv_freq.size(); ++j) EXPECT_NEAR(rope.inv_freq[j], c.inv_freq[j], 2e-7 * c.inv_freq[j]) << text << " " << j;
      EXPECT_FLOAT_EQ(rope.scale, c.scale) << text;
    }
}

TEST(HfRope, DynamicKeepsItsParameters) {
  const HfModel m =
      model_of(config_text("LlamaForCausalLM", R"(,"max_position_embeddings":256,"rope_scaling":{"type":"dynamic","factor":4.0})"));
  EXPECT_FLOAT_EQ(m.spec.rope->dynamic_factor, 4);
  EXPECT_EQ(m.spec.rope->n_ctx_original, 256u);
  EXPECT_EQ(m.spec.n_ctx_train, 1024u);
}

TEST(HfRope, PartialAndRefused) {
  const auto rope_of = [](const std::string& text) { return read_rope(JsonDocument("config.json", text).root(), 16, 256); };
  EXPECT_EQ(rope_of(R"({"partial_rotary_factor":0.5})").dim, 8u);
  EXPECT_REFUSED(rope_of(R"({"partial_rotary_factor":0.2})"), "even");
  EXPECT_REFUSED(rope_of(R"({"rope_scaling":{"type":"longrope"}})"),
                 "'longrope' is not supported; these are: default, linear, dynamic, llama3, yarn");
  EXPECT_REFUSED(rope_of(R"({"rope_scaling":{"type":"linear"}})"), "'factor' is missing");
  EXPECT_REFUSED(rope_of(R"({"rope_scaling":{"type":"linear","factor":0}})"), "'factor' must be positive");
  EXPECT_REFUSED(rope_of(R"({"rope_scaling":{"type":"linear","factor":2,"llama_4_scaling_beta":1}})"),
                 "'llama_4_scaling_beta' is not supported");
  EXPECT_REFUSED(rope_of(R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})"), "'full_attention' is not supported");
  EXPECT_REFUSED(rope_of(R"({"rope_theta":-1})"), "rope_theta");
}

format::fb::RopeT rope_of(const std::string& fields) {
  return read_rope(JsonDocument("config.json", R"({"rope_scaling":{)" + fields + "}}").root(), 16, 256);
}

std::string rope_warnings(const std::string& fields) {
  std::string said;
  const Options options{[&](std::string_view text) { said += std::string(text) + "\n"; }};
  warn_of_rope(JsonDocument("config.json", R"({"rope_scaling":{)" + fields + "}}").root(), options);
  return said;
}

TEST(HfRope, KeysOfOtherTypesAreLeftOut) {
  const struct {
    const char *own, *leftover;
  } cases[] = {
      {R"("type":"linear","factor":2.0)", R"("low_freq_factor":1.0,"high_freq_factor":4.0,"beta_fast":32,"attn_factor":2)"},
      {R"("type":"dynamic","factor":2.0)", R"("mscale":0.7,"short_factor":[1,2],"long_factor":[1,2])"},
      {R"("rope_type":"default")", R"("alpha":1000,"beta_slow":1,"truncate":false)"},
      {R"("rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0)", R"("attention_factor":3,"long_mscale":2)"},
      {R"("rope_type":"yarn","factor":4.0)", R"("low_freq_factor":1.0,"alpha":3,"short_mscale":1)"},
  };
  for (const auto& c : cases) {
    const auto clean = rope_of(c.own), both = rope_of(std::string(c.own) + "," + c.leftover);
    EXPECT_EQ(clean.inv_freq, both.inv_freq) << c.own;
    EXPECT_EQ(clean.scale, both.scale) << c.own;
    EXPECT_EQ(clean.dynamic_factor, both.dynamic_factor) << c.own;
    EXPECT_EQ(rope_warnings(c.own), "");
    const std::string said = rope_warnings(std::string(c.own) + "," + c.leftover);
    EXPECT_GE(std::count(said.begin(), said.end(), '\n'), 2) << said;
    const std::string config = R"({"rope_scaling":{)" + std::string(c.own) + "," + c.leftover + "}}";
    const std::string written = rope_settings(JsonDocument("config.json", config).root());  // of an exported config.json
    if (!written.empty()) {
      EXPECT_EQ(rope_warnings(written.substr(1, written.size() - 2)), "") << written;
    }
  }
  EXPECT_EQ(rope_warnings(R"("rope_type":"linear","factor":2,"low_freq_factor":null)"), "");
}

// Text has the same position in all sections.
TEST(HfRope, SectionsOfPicturesAreTheSameForText) {
  const auto plain = rope_of(R"("rope_type":"default")");
  for (const char* fields : {R"("type":"mrope","mrope_section":[2,3,3])", R"("rope_type":"default","type":"mrope","mrope_section":[2,3,3])",
                             R"("rope_type":"default","mrope_section":[2,3,3],"mrope_interleaved":true)"}) {
    EXPECT_EQ(rope_of(fields).inv_freq, plain.inv_freq) << fields;
    EXPECT_EQ(rope_warnings(fields), "") << fields;
    const std::string config = R"({"rope_scaling":{)" + std::string(fields) + "}}";
    EXPECT_EQ(rope_settings(JsonDocument("config.json", config).root()), "");
  }
  EXPECT_EQ(rope_of(R"("type":"linear","factor":2,"mrope_section":[2,3,3])").inv_freq, rope_of(R"("type":"linear","factor":2)").inv_freq);
}

// vLLM and llama.cpp: attn_factor multiplies 0.1 ln(factor) + 1; transformers: attention_factor stands for the whole.
TEST(HfRope, AttentionFactors) {
  const auto scale = [](const std::string& more) { return rope_of(R"("rope_type":"yarn","factor":4.0)" + more).scale; };
  const double of_factor = 0.1 * std::log(4.0) + 1;
  EXPECT_FLOAT_EQ(scale(""), static_cast<float>(of_factor));
  EXPECT_FLOAT_EQ(scale(R"(,"attn_factor":0.8782488562869419)"), 1.0f);
  EXPECT_FLOAT_EQ(scale(R"(,"attn_factor":1.5)"), static_cast<float>(1.5 * of_factor));
  EXPECT_FLOAT_EQ(scale(R"(,"attn_factor":1.5,"attention_factor":0.25)"), 0.25f);
  EXPECT_FLOAT_EQ(scale(R"(,"attn_factor":2,"mscale":0.707,"mscale_all_dim":0.5)"),
                  static_cast<float>(2 * (0.0707 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1)));
  EXPECT_FLOAT_EQ(scale(R"(,"attn_factor":1.5,"apply_yarn_scaling":false)"), 1.5f);
  // An exported config.json has both, so that transformers computes what vLLM does.
  const JsonDocument config("config.json", R"({"rope_scaling":{"rope_type":"yarn","factor":4.0,"attn_factor":1.5}})");
  const std::string written = rope_settings(config.root());
  EXPECT_NE(written.find("\"attn_factor\": 1.5"), std::string::npos) << written;
  EXPECT_FLOAT_EQ(rope_of(written.substr(1, written.size() - 2)).scale, static_cast<float>(1.5 * of_factor));
}

TEST(HfRope, AlphaIsOneThetaForAllLengths) {
  const auto rope = rope_of(R"("type":"dynamic","alpha":1000.0,"factor":1.0)");
  EXPECT_EQ(rope.dynamic_factor, 0);
  const double theta = 10000 * std::pow(1000.0, 16.0 / 14);
  for (size_t j = 0; j < rope.inv_freq.size(); ++j) {
    const double expected = std::pow(theta, -static_cast<double>(j) / 8);
    EXPECT_NEAR(rope.inv_freq[j], expected, 3e-7 * expected) << j;
  }
}

TEST(HfMetadata, Generation) {
  const TemporaryFolder folder;
  std::vector<std::string> warnings;
  const Options options{[&](std::string_view text) { warnings.emplace_back(text); }};
  const JsonDocument config("config.json", R"({"eos_token_id":2,"bos_token_id":1})");
  EndTokens ends_alone(100);
  const auto alone = read_generation(folder.path(), config.root(), 100, options, ends_alone);
  EXPECT_EQ(ends_alone.ids(), std::vector<int32_t>{2});
  EXPECT_EQ(ends_alone.reasons(), "2 config.json");
  EXPECT_EQ(alone.bos, 1);
  EXPECT_EQ(alone.pad, -1);
  folder.write(
      "generation_config.json",
      R"({"eos_token_id":[5,6,1000],"do_sample":true,"temperature":0.6,"top_k":20,"top_p":0.95,"min_p":7,"repetition_penalty":1.1})");
  EndTokens ends_both(100);
  const auto both = read_generation(folder.path(), config.root(), 100, options, ends_both);
  EXPECT_EQ(ends_both.ids(), (std::vector<int32_t>{5, 6, 2}));
  EXPECT_EQ(ends_both.reasons(), "5 generation_config.json; 6 generation_config.json; 2 config.json");
  EXPECT_EQ(both.eos, 5);
  EXPECT_FLOAT_EQ(both.temperature, 0.6f);
  EXPECT_EQ(both.top_k, 20);
  EXPECT_FLOAT_EQ(both.min_p, 0);
  EXPECT_FLOAT_EQ(both.repeat_penalty, 1.1f);
  EXPECT_EQ(warnings.size(), 2u);
  folder.write("generation_config.json", R"({"temperature":0.6,"top_k":20})");
  EndTokens ends_greedy(100);
  const auto greedy = read_generation(folder.path(), config.root(), 100, options, ends_greedy);
  EXPECT_EQ(greedy.top_k, 0);
  EXPECT_FLOAT_EQ(greedy.temperature, 0);
}

TEST(HfMetadata, EndTokensOfTheTokenizer) {
  TokenizerDescription t = small_description(text::fb::Alphabet::bytes);
  t.tokens.insert(t.tokens.end(), {{"<|im_end|>", false, false, true}, {"<|end|>", false, false, true}, {"[EOS]"}});
  t.added.insert(t.added.end(), {{10, "<|im_end|>"}, {11, "<|end|>"}, {12, "[EOS]"}});
  t.eos = {8, "<s>"};
  EndTokens ends(100);
  ends.add(t);
  EXPECT_EQ(ends.ids(), (std::vector<int32_t>{8, 10, 11}));  // [EOS] is no special token here
  EXPECT_EQ(ends.reasons(), "8 the tokenizer's eos <s>; 10 known as an end: <|im_end|>; 11 known as an end: <|end|>");
  t.tokens.push_back({"<|return|>", false, false, true});
  t.added.push_back({13, "<|return|>"});
  EndTokens of_channels(100);
  of_channels.add(t);
  EXPECT_EQ(of_channels.ids(), (std::vector<int32_t>{8, 10, 13}));
}

TEST(HfMetadata, ChatTemplates) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_chat_templates(folder.path(), {}), ChatTemplates{});
  folder.write(
      "tokenizer_config.json",
      R"({"model_max_length":1000000000000000019884624838656,)"
      R"("chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"D"}]})");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"tool_use", "T"}, {"", "D"}}));
  folder.write("tokenizer_config.json", R"({"chat_template":{"rag":"R","default":"D"}})");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"rag", "R"}, {"", "D"}}));
  folder.write("tokenizer_config.json", R"({"chat_template":"S"})");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"", "S"}}));
  folder.write("chat_template.json", R"({"chat_template":"J"})");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"", "J"}}));
  folder.write("chat_template.jinja", "{{ x }}");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"", "{{ x }}"}}));
  std::filesystem::create_directory(folder.path() + "/additional_chat_templates");
  folder.write("additional_chat_templates/tool_use.jinja", "{{ y }}");
  EXPECT_EQ(read_chat_templates(folder.path(), {}), (ChatTemplates{{"", "{{ x }}"}, {"tool_use", "{{ y }}"}}));
}

TEST(HfMetadata, License) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_license(folder.path()), "");
  folder.write("README.md", "---\nlanguage: en\nlicense: \"apache-2.0\"\n---\n# license: mit\n");
  EXPECT_EQ(read_license(folder.path()), "apache-2.0");
  folder.write("README.md", "# no front matter\nlicense: mit\n");
  EXPECT_EQ(read_license(folder.path()), "");
}

}  // namespace
}  // namespace gptq::test
