// SPDX-License-Identifier: Apache-2.0
// Every key of the families' configs missing or wrong: a sentence, never a crash.
#include <cstdlib>

#include "base/failure.h"
#include "converter/hf/config.h"
#include "converter/json_writer.h"
#include "converter_fixture.h"
#include "tests/sanitized.h"
#include "tests/unit/checked_spec.h"

namespace gptq::test {
namespace {

using namespace convert;
namespace fs = std::filesystem;

std::vector<fs::path> folders() {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(fs::path(golden ? golden : "tests/golden") / "families"))
    out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

// The config with one key (of its text part) in another way; "" leaves it out.
std::string changed(const JsonObject& config, std::string_view key, std::string_view value) {
  JsonWriter out;
  for (const auto field : config.fields()) {
    if (field.key == key) {
      if (!value.empty()) out.add_raw(key, value);
    } else if (field.key == "text_config") {
      out.add_raw(field.key, changed(*config.object("text_config"), key, value));
    } else {
      out.add_raw(field.key, simdjson::minify(field.value));
    }
  }
  return out.object();
}

// "": it could be read.
std::string message_of(const std::string& folder) {
  try {
    const auto source = open_source(folder, {});
    test::load_all(*source);
  } catch (const base::Failure& failure) {
    EXPECT_GT(std::string_view(failure.detail.message).size(), 20u) << failure.detail.message;
    return failure.detail.message;
  }
  return {};
}

std::vector<std::string> keys_of(const JsonObject& config) {
  std::vector<std::string> keys;
  for (const auto field : text_config(config).fields()) keys.emplace_back(field.key);
  return keys;
}

TEST(FamilyConfig, EveryKeyMayBeWrong) {
  uint32_t number = 0, refused = 0, tried = 0;
  for (const fs::path& original : folders()) {
    const TemporaryFolder work;
    for (const auto& entry : fs::directory_iterator(original)) {
      if (entry.path().extension() != ".safetensors") continue;
      std::error_code no_links;
      const std::string copy = work.file(entry.path().filename().string());
      fs::create_symlink(fs::absolute(entry.path()), copy, no_links);
      if (no_links) fs::copy_file(entry.path(), copy);
    }
    const JsonDocument config = JsonDocument::read((original / "config.json").string(), "config.json", 1 << 20);
    for (const std::string& key : keys_of(config.root()))
      for (const char* value : {"", "null", "0", "-1", "3", "2147483648", "0.3", "\"x\"", "[7, null]", "{}"}) {
        if (is_left_out(number++, 8)) continue;
        SCOPED_TRACE(testing::Message() << original.filename() << ": " << key << " = " << value);
        work.write("config.json", changed(config.root(), key, value));
        ++tried;
        refused += !message_of(work.path()).empty();
      }
  }
  EXPECT_GT(tried, 100u);
  EXPECT_GT(refused, tried / 10);
}

TEST(FamilyConfig, WhatIsMissingIsNamed) {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  const std::string original = std::string(golden ? golden : "tests/golden") + "/families/mixtral-w4-g32";
  const JsonDocument config = JsonDocument::read(original + "/config.json", "config.json", 1 << 20);
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_local_experts", "num_experts_per_tok"}) {
    const JsonDocument without("config.json", changed(config.root(), key, ""));
    EXPECT_REFUSED(read_config(without.root()), key);
  }
}

// What a config says and few models have: heard, or refused by name.
TEST(FamilyConfig, RareOptionsAreHeardOrRefused) {
  const std::string sizes = R"("vocab_size":64,"hidden_size":32,"num_hidden_layers":2,"num_attention_heads":2,"max_position_embeddings":64,)";
  const auto spec_of = [&](const std::string& name, const std::string& rest) {
    const JsonDocument document("config.json", "{\"architectures\":[\"" + name + "\"]," + sizes + rest + "}");
    return read_config(document.root()).spec;
  };
  using kernels::Activation;
  const struct {
    const char *name, *rest;
    Activation activation;
  } activations[] = {
      {"GPTJForCausalLM", R"("rotary_dim":8)", Activation::gelu_tanh},
      {"GPTJForCausalLM", R"("rotary_dim":8,"activation_function":"relu")", Activation::relu},
      {"CodeGenForCausalLM", R"("rotary_dim":8,"activation_function":"gelu")", Activation::gelu},
      {"GPTNeoForCausalLM", R"("activation_function":"relu")", Activation::relu},
      {"GPT2LMHeadModel", R"("activation_function":"silu")", Activation::silu},
      {"PhiForCausalLM", R"("hidden_act":"relu")", Activation::relu},
      {"ArceeForCausalLM", R"("hidden_act":"gelu")", Activation::gelu},
      {"ArceeForCausalLM", R"("rope_theta":10000)", Activation::relu2},
      {"NemotronForCausalLM", R"("hidden_act":"gelu")", Activation::gelu},
      {"FalconForCausalLM", R"("activation":"relu")", Activation::relu},
      {"GemmaForCausalLM", R"("hidden_act":"gelu")", Activation::gelu_tanh},
      {"Gemma2ForCausalLM", R"("hidden_activation":"gelu")", Activation::gelu},
      {"ApertusForCausalLM", R"("hidden_act":"xielu")", Activation::xielu},
      {"ApertusForCausalLM", R"("hidden_act":"silu")", Activation::silu},
  };
  for (const auto& c : activations) EXPECT_EQ(spec_of(c.name, c.rest).activation, static_cast<uint8_t>(c.activation)) << c.name << " " << c.rest;
  for (const char* name : {"GPT2LMHeadModel", "GPTBigCodeForCausalLM"}) {
    EXPECT_EQ(spec_of(name, R"("scale_attn_weights":false)").attention_scale, 1) << name;
    EXPECT_EQ(spec_of(name, R"("scale_attn_weights":true)").attention_scale, 0.25f) << name;
  }
  EXPECT_REFUSED(spec_of("GPTNeoForCausalLM", R"("activation_function":"mish")"), "mish");
  EXPECT_REFUSED(spec_of("Lfm2ForCausalLM", R"("conv_bias":true,"layer_types":["conv","full_attention"],"conv_L_cache":3,"intermediate_size":64)"), "conv_bias");
  EXPECT_REFUSED(spec_of("Qwen3NextForCausalLM", R"("hidden_act":"gelu","layer_types":["linear_attention","full_attention"],"linear_num_key_heads":2,"linear_num_value_heads":2,"linear_key_head_dim":16,"linear_value_head_dim":16)"),
                 "hidden_act");
}

}  // namespace
}  // namespace gptq::test
