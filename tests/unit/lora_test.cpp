// SPDX-License-Identifier: Apache-2.0
// PEFT folders with a LoRA: which modules, ranks and scales their config means, and what is refused by name.
#include <cmath>

#include "converter/lora/adapter_config.h"
#include "converter/lora/lora.h"
#include "converter/lora/merge.h"
#include "format/container.h"
#include "small_checkpoint.h"

namespace gptq::test {
namespace {

using convert::AdapterConfig;

AdapterConfig config_of(const std::string& fields) {
  const convert::JsonDocument document("adapter_config.json", "{" + fields + "}");
  return AdapterConfig(document.root());
}

TEST(AdapterConfigs, TargetsByLastNames) {
  const AdapterConfig c = config_of(R"("target_modules": ["q_proj", "mlp.up_proj"])");
  EXPECT_TRUE(c.targets("model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(c.targets("model.layers.11.mlp.up_proj"));
  EXPECT_TRUE(c.targets("q_proj"));
  EXPECT_FALSE(c.targets("model.layers.0.self_attn.xq_proj"));
  EXPECT_FALSE(c.targets("model.layers.0.self_attn.q_proj.x"));
  EXPECT_FALSE(c.targets("model.layers.0.other.up_proj"));
}

TEST(AdapterConfigs, TargetsByExpression) {
  const AdapterConfig c = config_of(R"("target_modules": ".*layers\\.[02]\\.self_attn\\.(q|v)_proj")");
  EXPECT_TRUE(c.targets("model.layers.2.self_attn.v_proj"));
  EXPECT_FALSE(c.targets("model.layers.1.self_attn.v_proj"));
  EXPECT_FALSE(c.targets("model.layers.2.self_attn.v_projection"));  // the whole name
  const AdapterConfig all = config_of(R"("target_modules": "all-linear", "exclude_modules": ["k_proj"])");
  EXPECT_TRUE(all.targets("model.layers.2.mlp.down_proj"));
  EXPECT_FALSE(all.targets("model.layers.2.self_attn.k_proj"));
  const AdapterConfig excluded = config_of(R"("target_modules": ["q_proj"], "exclude_modules": ".*\\.1\\..*")");
  EXPECT_TRUE(excluded.targets("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(excluded.targets("model.layers.1.self_attn.q_proj"));
}

TEST(AdapterConfigs, LayersToTransform) {
  for (const char* pattern : {"", R"(, "layers_pattern": "layers")", R"(, "layers_pattern": ["h", "layers"])"}) {
    const AdapterConfig c = config_of(R"("target_modules": ["q_proj"], "layers_to_transform": [1, 3])" + std::string(pattern));
    EXPECT_FALSE(c.targets("model.layers.0.self_attn.q_proj")) << pattern;
    EXPECT_TRUE(c.targets("model.layers.1.self_attn.q_proj")) << pattern;
    EXPECT_FALSE(c.targets("model.layers.13.self_attn.q_proj")) << pattern;
  }
  EXPECT_TRUE(config_of(R"("target_modules": ["q_proj"], "layers_to_transform": 2)").targets("model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(config_of(R"("target_modules": ["q_proj"], "layers_to_transform": 2, "layers_pattern": "h")").targets("model.layers.2.self_attn.q_proj"));
}

TEST(AdapterConfigs, RanksAndScales) {
  const AdapterConfig c = config_of(R"("target_modules": ["q_proj"], "r": 8, "lora_alpha": 32, "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2, "q_proj": 4, "layers.1.self_attn.q_proj": 16},
                                       "alpha_pattern": {"layers.[12].self_attn.q_proj": 12})");
  EXPECT_EQ(c.rank("model.layers.0.mlp.up_proj"), 8u);
  EXPECT_EQ(c.scale("model.layers.0.mlp.up_proj"), 4);
  EXPECT_EQ(c.rank("model.layers.0.self_attn.q_proj"), 2u);
  EXPECT_EQ(c.scale("model.layers.0.self_attn.q_proj"), 16);
  EXPECT_EQ(c.rank("model.layers.1.self_attn.q_proj"), 4u);  // the first that fits
  EXPECT_EQ(c.scale("model.layers.1.self_attn.q_proj"), 3);
  EXPECT_EQ(c.rank("model.layers.1.self_attn.xq_proj"), 8u);
  EXPECT_DOUBLE_EQ(config_of(R"("target_modules": ["q_proj"], "r": 4, "lora_alpha": 6.5, "use_rslora": true)").scale("q_proj"), 3.25);
  EXPECT_DOUBLE_EQ(config_of(R"("target_modules": ["q_proj"])").scale("q_proj"), 1);
}

TEST(AdapterConfigs, RefusesByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("use_dora": true)", "use_dora"},
      {R"("modules_to_save": ["lm_head"])", "modules_to_save"},
      {R"("bias": "all")", "bias"},
      {R"("bias": "lora_only")", "bias"},
      {R"("lora_bias": true)", "lora_bias"},
      {R"("peft_type": "IA3")", "IA3"},
      {R"("use_qalora": true)", "use_qalora"},
      {R"("target_parameters": ["experts.gate_up_proj"])", "target_parameters"},
      {R"("trainable_token_indices": [1])", "trainable_token_indices"},
      {R"("layer_replication": [[0, 4]])", "layer_replication"},
      {R"("alora_invocation_tokens": [1, 2])", "alora_invocation_tokens"},
      {R"("use_bdlora": {"nblocks": 2})", "use_bdlora"},
      {R"("kasa_config": {"beta": 1})", "kasa_config"},
      {R"("arrow_config": {"top_k": 1})", "arrow_config"},
      {R"("init_lora_weights": "pissa")", "pissa"},
      {R"("init_lora_weights": "pissa_niter_4")", "pissa_niter_4"},
      {R"("init_lora_weights": "olora")", "olora"},
      {R"("init_lora_weights": "loftq")", "loftq"},
      {R"("something_new": 3)", "something_new"},
      {R"("rank_pattern": {"(": 3})", "rank_pattern"},
      {R"("rank_pattern": {"q_proj": "x"})", "rank_pattern"},
  };
  for (const auto& c : cases) {
    const std::string message = failure_of([&] { config_of(R"("target_modules": ["q_proj"], )" + std::string(c.first)); });
    EXPECT_NE(message.find(c.second), message.npos) << c.first << ": " << message;
  }
  EXPECT_NE(failure_of([] { config_of(R"("r": 8)"); }).find("target_modules"), std::string::npos);
  for (const char* rank : {"0", "1025", "2.5", "-1"})
    EXPECT_NE(failure_of([&] { config_of(R"("target_modules": ["q_proj"], "r": )" + std::string(rank)).rank("q_proj"); }), "") << rank;
  // As PEFT writes what is not used, and ways of initializing that leave the base alone.
  config_of(R"("target_modules": ["q_proj"], "modules_to_save": null, "use_dora": false, "kasa_config": {}, "trainable_token_indices": [], "init_lora_weights": "gaussian",
               "loftq_config": {}, "megatron_core": "megatron.core", "fan_in_fan_out": true, "lora_dropout": 0.1)");
}

// A small Llama, and a LoRA beside it.
class LoraFolder : public testing::Test {
 protected:
  LoraFolder() {
    checkpoint.run();
    add("model.layers.0.self_attn.q_proj", 8, 8);
    add("model.layers.0.mlp.down_proj", 8, 12);
  }
  void add(const std::string& module, uint64_t n, uint64_t k, uint64_t rank = 2) {
    std::vector<float> a(rank * k), b(n * rank);
    for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i) / 3;
    for (size_t i = 0; i < b.size(); ++i) b[i] = 1 - static_cast<float>(i) / 5;
    tensors["base_model.model." + module + ".lora_A.weight"] = tensor("F32", {rank, k}, a);
    tensors["base_model.model." + module + ".lora_B.weight"] = tensor("F32", {n, rank}, b);
  }
  convert::LoraResult run(const convert::LoraOptions& options = {.replace = true}) {
    folder.write("adapter_config.json", config);
    folder.write("adapter_model.safetensors", safetensors(tensors));
    return convert::convert_lora(folder.path(), base::FileSource(checkpoint.folder.file("out.gptq")), folder.file("out"), options);
  }
  std::string message() {
    return failure_of([&] { run(); });
  }
  void expect(const char* words) {
    const std::string text = message();
    EXPECT_NE(text.find(words), text.npos) << text;
    EXPECT_FALSE(std::filesystem::exists(folder.file("out")));
  }
  SmallCheckpoint checkpoint;
  TemporaryFolder folder;
  std::map<std::string, RawTensor> tensors;
  std::string config = R"({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]})";
};

TEST_F(LoraFolder, BecomesOneFile) {
  const convert::LoraResult result = run();
  EXPECT_EQ(result.n_matrices, 2u);
  EXPECT_EQ(result.rank, 2u);
  EXPECT_EQ(result.n_parameters, 2u * (8 + 8 + 8 + 12));
  EXPECT_EQ(convert::verify(base::FileSource(folder.file("out"))).n_tensors, 4u);
  EXPECT_EQ(result.bytes, std::filesystem::file_size(folder.file("out")));
  const base::FileSource file(folder.file("out"));
  const format::Reader reader(file, std::pmr::get_default_resource());
  ASSERT_EQ(reader.manifest().tensors()->size(), 4u);
  const auto* b = reader.find("layers.0.down.b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->scale(), 3);
  EXPECT_EQ(b->n(), 8u);
  EXPECT_EQ(b->k(), 2u);
  // What it says is what was there.
  std::vector<float> values(16);
  reader.read_part(*b->parts()->Get(0), std::as_writable_bytes(std::span(values)), std::pmr::get_default_resource());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 1 - static_cast<float>(i) / 5);
  EXPECT_NE(failure_of([&] { run({}); }).find("exists"), std::string::npos);  // not replaced
}

TEST_F(LoraFolder, RoundsWhereAsked) {
  const uint64_t whole = run().bytes;
  const uint64_t half = run({.replace = true, .kind = kernels::Kind::f16}).bytes;
  EXPECT_LT(half, whole);
  const base::FileSource file(folder.file("out"));
  const format::Reader reader(file, std::pmr::get_default_resource());
  EXPECT_EQ(reader.find("layers.0.q.a")->kind(), static_cast<uint8_t>(kernels::Kind::f16));
  tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = tensor("F32", {2, 8}, std::vector<float>(16, 1e6f));
  EXPECT_NE(failure_of([&] { run({.replace = true, .kind = kernels::Kind::f16}); }).find("infinity"), std::string::npos);
}

// Merged into float32 weights: W + scale * alpha / r * B A.
TEST_F(LoraFolder, IsMergedIntoWeights) {
  run();
  const base::FileSource model(checkpoint.folder.file("out.gptq")), adapter(folder.file("out"));
  convert::merge_lora(model, adapter, 0.5, folder.file("merged.gptq"), base::AtomicFile::IfExists::refuse);
  const base::FileSource merged(folder.file("merged.gptq"));
  convert::verify(merged);
  const auto values = [](const base::Source& source, const char* name, size_t count) {
    const format::Reader reader(source, std::pmr::get_default_resource());
    std::vector<float> out(count);
    reader.read_part(*reader.find(name)->parts()->Get(0), std::as_writable_bytes(std::span(out)), std::pmr::get_default_resource());
    return out;
  };
  const std::vector<float> before = values(model, "layers.0.down", 8 * 12), after = values(merged, "layers.0.down", 8 * 12), a = values(adapter, "layers.0.down.a", 24),
                           b = values(adapter, "layers.0.down.b", 16);
  for (size_t i = 0; i < 8; ++i)
    for (size_t j = 0; j < 12; ++j) {
      const double expected = before[i * 12 + j] + 0.5 * 3 * (double{b[i * 2]} * a[j] + double{b[i * 2 + 1]} * a[12 + j]);
      EXPECT_NEAR(after[i * 12 + j], expected, 1e-5);
    }
  EXPECT_EQ(values(model, "layers.0.k", 64), values(merged, "layers.0.k", 64));
}

TEST_F(LoraFolder, RefusesOtherTensors) {
  add("lm_head", 10, 8);
  config = R"({"r": 2, "target_modules": ["q_proj", "down_proj", "lm_head"]})";
  expect("'lm_head' is none of the matrices");
  tensors.clear();
  add("model.layers.7.self_attn.q_proj", 8, 8);
  expect("'model.layers.7.self_attn.q_proj' is none of the matrices");
  tensors.clear();
  tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = tensor("F32", {8}, std::vector<float>(8, 1));
  expect("lora_magnitude_vector");
  tensors.clear();
  tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = tensor("F32", {2, 10}, std::vector<float>(20, 1));
  expect("lora_embedding_A");
  tensors.clear();
  tensors["model.layers.0.self_attn.q_proj.lora_A.weight"] = tensor("F32", {2, 8}, std::vector<float>(16, 1));
  expect("does not begin with");
  tensors.clear();
  expect("has no tensors");
}

TEST_F(LoraFolder, RefusesWhatDoesNotFit) {
  const std::string a = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", b = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
  const auto saved = tensors;
  tensors.erase(b);
  expect("lora_A without the other");
  tensors = saved;
  add("model.layers.0.self_attn.q_proj", 8, 8, 3);
  expect("says rank 2");
  tensors = saved;
  add("model.layers.0.self_attn.q_proj", 8, 9);
  expect("for another model");
  tensors = saved;
  add("model.layers.0.self_attn.q_proj", 9, 8);
  expect("for another model");
  tensors = saved;
  tensors[a] = tensor("F32", {2, 8}, std::vector<float>(16, NAN));
  expect("NaN");
  tensors[a] = tensor("I32", {2, 8}, std::vector<int32_t>(16, 1));
  expect("must be F16, BF16 or F32");
  tensors[a] = tensor("F32", {16}, std::vector<float>(16, 1));
  expect("where a matrix belongs");
  tensors = saved;
  config = R"({"r": 2, "target_modules": ["q_proj"]})";
  expect("target_modules in adapter_config.json does not choose");
}

TEST_F(LoraFolder, RefusesPickles) {
  folder.write("adapter_config.json", config);
  folder.write("adapter_model.bin", "x");
  const auto convert = [&] { convert::convert_lora(folder.path(), base::FileSource(checkpoint.folder.file("out.gptq")), folder.file("out"), {}); };
  EXPECT_NE(failure_of(convert).find("pickle"), std::string::npos);
}

}  // namespace
}  // namespace gptq::test
