// SPDX-License-Identifier: Apache-2.0
// Folders made of .gptq files: the tensors that went in come out, and what engines ask of a GPTQ checkpoint holds.
#if !defined(_WIN32)
#include <sys/resource.h>
#endif

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "converter/dialects/bit_fields.h"
#include "converter/dialects/quant_config.h"
#include "export_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;
namespace fs = std::filesystem;

std::vector<fs::path> checkpoint_folders() {
  std::vector<fs::path> out;
  if (const char* data = std::getenv("GPTQ_TEST_DATA"))
    for (const auto& entry : fs::directory_iterator(fs::path(data) / "checkpoints"))
      if (entry.is_directory()) out.push_back(entry.path());
  return out;
}

std::string convert_folder(const std::string& folder, const std::string& path) {
  convert::convert(*open_source(folder, {}), path, {});
  return path;
}

std::string exported(const std::string& path, const std::string& folder, ZerosFormat zeros) {
  ExportOptions how;
  how.zeros = zeros;
  how.replace = true;
  export_hf(base::FileSource(path), folder, how);
  return folder;
}

// What vLLM's loader of GPTQ checkpoints assumes: names, types and shapes of every tensor, and the keys it reads.
void expect_vllm_can_load(const std::string& folder) {
  const JsonDocument config = JsonDocument::read(folder + "/config.json", "config.json", 1 << 20);
  const JsonDocument beside = JsonDocument::read(folder + "/quantize_config.json", "quantize_config.json", 1 << 20);
  const auto inside = config.root().object("quantization_config");
  ASSERT_TRUE(inside);
  EXPECT_EQ(*inside->string("quant_method"), "gptq");
  for (const JsonObject& q : {*inside, beside.root()}) {
    EXPECT_TRUE(q.integer("bits") && q.integer("group_size") && q.boolean("desc_act") && q.boolean("sym") && q.boolean("lm_head"));
    EXPECT_EQ(q.string("checkpoint_format"), q.string("format"));
    EXPECT_TRUE(q.object("meta")->array("quantizer"));
  }
  const auto quant = read_quant_config(folder, config.root());
  const TensorFolder tensors(folder);
  size_t n_modules = 0;
  for (const std::string_view name : tensors.names()) {
    if (!name.ends_with(".qweight")) continue;
    ++n_modules;
    const std::string module(name.substr(0, name.size() - 8));
    const auto settings = quant->rules.apply(module, quant->settings);
    ASSERT_TRUE(settings) << module;
    const uint64_t n = tensors.get(module + ".qweight").shape[1], k = tensors.get(module + ".g_idx").shape[0], bits = settings->bits;
    const uint64_t groups =
        settings->group_size > 0 ? (k + static_cast<uint64_t>(settings->group_size) - 1) / static_cast<uint64_t>(settings->group_size) : 1;
    const auto text = [](uint64_t a, uint64_t b) { return " [" + std::to_string(a) + ", " + std::to_string(b) + "]"; };
    EXPECT_EQ(describe(tensors.get(module + ".qweight")), "I32" + text((k * bits + 31) / 32, n)) << module;
    EXPECT_EQ(describe(tensors.get(module + ".qzeros")), "I32" + text(groups, (n * bits + 31) / 32)) << module;
    EXPECT_EQ(describe(tensors.get(module + ".scales")), "F16" + text(groups, n)) << module;
    EXPECT_EQ(describe(tensors.get(module + ".g_idx")), "I32 [" + std::to_string(k) + "]") << module;
    EXPECT_FALSE(tensors.find(module + ".weight"));
  }
  EXPECT_GT(n_modules, 0u);
}

void expect_round_trip(const fs::path& folder) {
  const TemporaryFolder work;
  const std::string original = folder.string(), first = convert_folder(original, work.file("first.gptq"));
  const bool quantized = original.find("-w") != original.npos, v2 = original.find("v2") != original.npos;
  const bool asymmetric = original.find("asym") != original.npos;
  // Asymmetric v1 becomes v2 unless told otherwise: there alone the words differ.
  const std::string out = exported(first, work.file("out"), ZerosFormat::automatic);
  EXPECT_EQ(difference(original, out, asymmetric && !v2 ? std::vector<std::string>{".qzeros"} : std::vector<std::string>()), "");
  EXPECT_EQ(TensorFolder(out).names().size(), TensorFolder(original).names().size());
  if (quantized) expect_vllm_can_load(out);
  const auto there = tensors_of(first);
  EXPECT_TRUE(there == tensors_of(convert_folder(out, work.file("second.gptq"))));
  if (!asymmetric) return;
  EXPECT_TRUE(there == tensors_of(convert_folder(exported(first, out, ZerosFormat::v2), work.file("third.gptq"))));
}

TEST(Export, EveryCheckpointComesBack) {
  const auto folders = checkpoint_folders();
  if (folders.empty()) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with checkpoints/";
  for (const fs::path& folder : folders) {
    SCOPED_TRACE(folder.filename().string());
    expect_round_trip(folder);
  }
}

TEST(Export, EveryBitWidthGroupAndOrder) {
  for (const uint32_t bits : {2u, 3u, 4u, 8u})
    for (const int32_t group_size : {-1, 16, 24, 32, 64})
      for (const bool symmetric : {true, false})
        for (const bool reordered : {false, true}) {
          SCOPED_TRACE(testing::Message() << bits << " bits, groups of " << group_size << (symmetric ? "" : " asymmetric")
                                          << (reordered ? " reordered" : ""));
          QuantizedCheckpoint c;
          c.quantize_all({bits, group_size, symmetric, !symmetric, reordered && group_size > 0});
          c.run(R"(,"quantization_config":{"quant_method":"gptq","bits":)" + std::to_string(bits) + R"(,"group_size":)" +
                std::to_string(group_size) + R"(,"sym":)" + (symmetric ? "true" : R"(false,"checkpoint_format":"gptq_v2")") + "}");
          const std::string out = c.export_to("out");
          EXPECT_EQ(difference(c.folder.path(), out), "");
          expect_vllm_can_load(out);
          const JsonDocument config = JsonDocument::read(out + "/quantize_config.json", "", 1 << 20);
          EXPECT_EQ(*config.root().boolean("desc_act"), reordered && group_size > 0);
          EXPECT_EQ(*config.root().string("format"), symmetric ? "gptq" : "gptq_v2");
          EXPECT_EQ(*config.root().integer("bits"), bits);
          EXPECT_EQ(*config.root().integer("group_size"), group_size);
          EXPECT_EQ(c.warned("vLLM will not run"), !(symmetric && (bits == 4 || bits == 8) && (group_size == -1 || group_size == 32)));
        }
}

TEST(Export, ZerosInBothFormats) {
  QuantizedCheckpoint c;
  c.quantize_all({4, 32, false, false, false});
  c.run(R"(,"quantization_config":{"bits":4,"group_size":32,"sym":false,"meta":{"quantizer":["gptqmodel:7.7.0"]}})");
  ExportOptions v1;
  v1.zeros = ZerosFormat::v1;
  EXPECT_EQ(difference(c.folder.path(), c.export_to("v1", v1)), "");
  EXPECT_TRUE(c.warned("asymmetric checkpoints of format v1"));
  EXPECT_NE(difference(c.folder.path(), c.export_to("v2")), "");
  EXPECT_EQ(difference(c.folder.path(), c.folder.file("v2"), {".qzeros"}), "");

  QuantizedCheckpoint with_zero;
  with_zero.quantize_all({4, 32, false, true, false, 0});
  with_zero.run(R"(,"quantization_config":{"bits":4,"group_size":32,"sym":false,"checkpoint_format":"gptq_v2"})");
  EXPECT_EQ(difference(with_zero.folder.path(), with_zero.export_to("v2")), "");
  EXPECT_REFUSED(with_zero.export_to("v1", v1), "zero points of 0, which format v1 cannot say; export with --format v2");
  EXPECT_FALSE(fs::exists(with_zero.folder.file("v1")));
}

// GPTQModel has whole words of 32 rows and inputs: other matrices are written as they are computed with, in 16 bits.
TEST(Export, ShapesThatGptqCheckpointsCannotHave) {
  for (const uint32_t bits : {3u, 4u, 8u}) {
    QuantizedCheckpoint c;
    c.config.replace(c.config.find("\"vocab_size\":32"), 15, "\"vocab_size\":33");
    c.add("model.embed_tokens", 33, 64), c.add("lm_head", 33, 64);
    c.quantize_all({bits, 32});
    quantize(c.tensors, "lm_head", {bits, 32});
    const std::string quant = R"(,"quantization_config":{"quant_method":"gptq","lm_head":true,"group_size":32,"bits":)" + std::to_string(bits) + "}";
    c.run(quant);
    const std::string out = c.export_to("out");
    EXPECT_TRUE(c.warned("'lm_head.weight' [33, 64] is written as float16"));
    expect_vllm_can_load(out);
    const TensorFolder tensors(out);
    EXPECT_EQ(describe(tensors.get("lm_head.weight")), "F16 [33, 64]");
    EXPECT_FALSE(tensors.find("lm_head.qweight"));
    EXPECT_FALSE(*JsonDocument::read(out + "/quantize_config.json", "", 1 << 20).root().boolean("lm_head"));
    const QuantizedWeight w = random_quantized(33, 64, {bits, 32});
    const std::vector<std::byte> bytes = tensors.read(tensors.get("lm_head.weight"));
    for (size_t i = 0; i < w.codes.size(); ++i) {
      const size_t row = i / 64, group = static_cast<size_t>(w.g_idx[i % 64]);
      const float value = w.scales[row * w.n_groups + group] * static_cast<float>(int(w.codes[i]) - (1 << (bits - 1)));
      uint16_t half;
      std::memcpy(&half, bytes.data() + 2 * i, 2);
      ASSERT_EQ(kernels::float_from_half(half), kernels::float_from_half(kernels::half_from_float(value))) << i;
    }
  }
  QuantizedCheckpoint all;  // inputs alike: one line for both layers, and the rest stays quantized
  all.config.replace(all.config.find("\"intermediate_size\":96"), 22, "\"intermediate_size\":80");
  for (const std::string layer : {"model.layers.0.", "model.layers.1."})
    all.add(layer + "mlp.gate_proj", 80, 64), all.add(layer + "mlp.up_proj", 80, 64), all.add(layer + "mlp.down_proj", 64, 80);
  all.quantize_all({4, 16});
  all.run(R"(,"quantization_config":{"bits":4,"group_size":16})");
  const std::string out = all.export_to("out");
  expect_vllm_can_load(out);
  EXPECT_TRUE(all.warned("'model.layers.0.mlp.gate_proj.weight' [80, 64] and 5 more are written as float16"));
  const auto before = tensors_of(all.folder.file("out.gptq")), after = tensors_of(convert_folder(out, all.folder.file("again.gptq")));
  for (const auto& [name, bytes] : before)
    EXPECT_EQ(after.at(name) == bytes, name.find("gate") == name.npos && name.find("up") == name.npos && name.find("down") == name.npos) << name;
}

TEST(Export, ModulesThatDiffer) {
  QuantizedCheckpoint c;
  c.quantize_all({4, 32});
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    c.add(std::string("model.layers.1.self_attn.") + name, name[0] == 'q' ? 64 : 32, 64);
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    for (const char* suffix : {".qweight", ".qzeros", ".scales", ".g_idx"})
      c.tensors.erase(std::string("model.layers.1.self_attn.") + name + suffix);
  for (const std::string layer : {"0", "1"}) {
    c.add("model.layers." + layer + ".mlp.down_proj", 64, 96);
    quantize(c.tensors, "model.layers." + layer + ".mlp.down_proj", {8, -1});
  }
  quantize(c.tensors, "lm_head", {8, 32});
  c.run(R"(,"quantization_config":{"bits":4,"group_size":32})");
  const std::string out = c.export_to("out");
  EXPECT_EQ(difference(c.folder.path(), out), "");
  expect_vllm_can_load(out);
  EXPECT_FALSE(c.warned("vLLM"));
  const JsonDocument config = JsonDocument::read(out + "/config.json", "config.json", 1 << 20);
  const auto quant = read_quant_config(out, config.root());
  EXPECT_TRUE(*config.root().object("quantization_config")->boolean("lm_head"));
  const auto setting = [&](const std::string& module) { return quant->rules.apply(module, quant->settings); };
  // An engine that runs q, k and v as one asks for qkv_proj.
  for (const char* name : {"q_proj", "k_proj", "v_proj", "qkv_proj"}) {
    EXPECT_FALSE(setting(std::string("model.layers.1.self_attn.") + name)) << name;
    EXPECT_EQ(setting(std::string("model.layers.0.self_attn.") + name)->bits, 4u) << name;
  }
  EXPECT_EQ(setting("model.layers.0.mlp.down_proj")->bits, 8u);
  EXPECT_EQ(setting("model.layers.1.mlp.down_proj")->group_size, -1);
  EXPECT_EQ(setting("model.layers.11.mlp.down_proj")->bits, 4u);
  EXPECT_EQ(setting("lm_head")->bits, 8u);

  c.add("model.layers.0.self_attn.k_proj", 32, 64);
  for (const char* suffix : {".qweight", ".qzeros", ".scales", ".g_idx"})
    c.tensors.erase(std::string("model.layers.0.self_attn.k_proj") + suffix);
  c.run(R"(,"quantization_config":{"bits":4,"group_size":32})");
  c.export_to("again");
  EXPECT_TRUE(c.warned("q_proj and self_attn.k_proj are quantized differently, and it runs them as one"));
}

TEST(Export, Shards) {
  QuantizedCheckpoint c;
  c.quantize_all({4, 32});
  c.run(R"(,"quantization_config":{"bits":4,"group_size":32})");
  ExportOptions how;
  how.shard_bytes = 10'000;
  const std::string out = c.export_to("out", how);
  const JsonDocument index = JsonDocument::read(out + "/model.safetensors.index.json", "index", 1 << 20);
  const std::string last(*index.root().object("weight_map")->string("model.norm.weight"));
  EXPECT_TRUE(last.starts_with("model-0000") && last.find("-of-0000") != last.npos) << last;
  EXPECT_FALSE(fs::exists(out + "/model.safetensors"));
  EXPECT_EQ(difference(c.folder.path(), out), "");
  EXPECT_EQ(difference(out, c.folder.path()), "");
}

// ---- what is not quantized, and config.json ----

HfModel model_of(const std::string& folder) {
  return read_config(JsonDocument::read(folder + "/config.json", "config.json", 1 << 20).root());
}

TEST(Export, RotarySettings) {
  for (
      const char* settings :
      {R"(,"rope_theta":500000.0)", R"(,"rope_scaling":{"type":"linear","factor":2.5})",
       R"(,"rope_parameters":{"rope_type":"dynamic","factor":4.0,"rope_theta":20000.0})",
       R"(,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32})",
       R"(,"rope_scaling":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":16,"beta_fast":20,"attention_factor":1.25})",
       R"(,"original_max_position_embeddings":16,"rope_parameters":{"rope_type":"yarn","rope_theta":1000000.0})",
       R"(,"partial_rotary_factor":0.5)"}) {
    SCOPED_TRACE(settings);
    QuantizedCheckpoint c;
    c.run(settings);
    const HfModel before = model_of(c.folder.path()), after = model_of(c.export_to("out"));
    EXPECT_EQ(before.spec.rope->inv_freq, after.spec.rope->inv_freq);
    EXPECT_EQ(before.spec.rope->scale, after.spec.rope->scale);
    EXPECT_EQ(before.spec.rope->dynamic_factor, after.spec.rope->dynamic_factor);
    EXPECT_EQ(before.spec.rope->n_ctx_original, after.spec.rope->n_ctx_original);
    EXPECT_EQ(before.spec.n_ctx_train, after.spec.n_ctx_train);
    EXPECT_EQ(difference(c.folder.path(), c.folder.file("out")), "");
  }
}

// A bias where the class has it in all projections or in none: what is missing is written as zeros.
TEST(Export, Biases) {
  const auto bias = [](uint64_t n) { return tensor("F16", {n}, std::vector<uint16_t>(n, 0x3C00)); };
  QuantizedCheckpoint c;
  c.tensors["model.layers.0.self_attn.q_proj.bias"] = bias(64);
  c.run();
  const std::string out = c.export_to("out");
  EXPECT_TRUE(model_of(out).attention_bias);
  EXPECT_FALSE(model_of(out).mlp_bias);
  EXPECT_EQ(describe(TensorFolder(out).get("model.layers.1.self_attn.o_proj.bias")), "F16 [64]");
  EXPECT_EQ(difference(c.folder.path(), out), "");
  EXPECT_EQ(tensors_of(convert_folder(out, c.folder.file("again.gptq"))).size(), tensors_of(c.folder.file("out.gptq")).size() + 7);

  for (const std::string layer : {"0", "1"}) {
    c.tensors["model.layers." + layer + ".self_attn.q_proj.bias"] = bias(64);
    for (const char* name : {"k", "v"}) c.tensors["model.layers." + layer + ".self_attn." + name + "_proj.bias"] = bias(32);
  }
  c.config.replace(c.config.find("Llama"), 5, "Qwen2");
  c.run();
  EXPECT_EQ(model_of(c.export_to("qwen")).architecture->name, "Qwen2ForCausalLM");
  EXPECT_EQ(difference(c.folder.path(), c.folder.file("qwen")), "");
}

TEST(Export, Windows) {
  QuantizedCheckpoint c;
  c.config.replace(c.config.find("Llama"), 5, "Mistral");
  c.run(R"(,"sliding_window":16)");
  const HfModel mistral = model_of(c.export_to("out"));
  EXPECT_EQ(mistral.architecture->name, "MistralForCausalLM");
  EXPECT_EQ(mistral.spec.window, 16u);
  c.run(R"(,"sliding_window":null)");
  EXPECT_EQ(model_of(c.export_to("all")).spec.window, 0u);
  for (const char* name : {"q_norm", "k_norm"})
    for (const char* layer : {"0", "1"}) c.add(std::string("model.layers.") + layer + ".self_attn." + name, 16, 0);
  c.config.replace(c.config.find("Mistral"), 7, "Qwen3");
  c.run(R"(,"head_dim":16,"use_sliding_window":true,"sliding_window":8,"layer_types":["full_attention","sliding_attention"])");
  const HfModel qwen = model_of(c.export_to("qwen"));
  EXPECT_EQ(qwen.spec.windowed_layers, (std::vector<uint8_t>{0, 1}));
  EXPECT_EQ(qwen.spec.window, 8u);
  EXPECT_TRUE(qwen.spec.qk_norm);
}

TEST(Export, GenerationAndLicense) {
  QuantizedCheckpoint c;
  const std::string generation =
      R"({"bos_token_id":1,"eos_token_id":[2,7],"pad_token_id":3,"do_sample":true,"temperature":0.75,"top_k":20,"repetition_penalty":1.25})";
  c.folder.write("generation_config.json", generation);
  c.folder.write("README.md", "---\nlicense: apache-2.0\n---\n");
  c.run();
  const std::string first = inspect(base::FileSource(c.folder.file("out.gptq")), false);
  convert_folder(c.export_to("out"), c.folder.file("again.gptq"));
  const std::string second = inspect(base::FileSource(c.folder.file("again.gptq")), false);
  for (const char* key : {"temperature", "top_k", "top_p", "repeat_penalty", "bos", "eos", "pad", "end_tokens", "license"}) {
    const auto line = [&](const std::string& facts) { return facts.substr(facts.find(std::string("  ") + key + " "), 60); };
    EXPECT_EQ(line(first).substr(0, line(first).find('\n')), line(second).substr(0, line(second).find('\n')));
  }
}

// ---- the folder ----

TEST(Export, NothingIsReplacedUnasked) {
  QuantizedCheckpoint c;
  c.run();
  c.export_to("out");
  EXPECT_REFUSED(c.export_to("out"), "exists already; --force replaces it");
  ExportOptions force;
  force.replace = true;
  c.folder.write("out/model-00009-of-00009.safetensors", "of an older export");
  c.export_to("out/", force);
  EXPECT_FALSE(fs::exists(c.folder.file("out/model-00009-of-00009.safetensors")));
  for (const std::string name : {"notes.txt", "my.gptq", ".hidden"}) {
    c.folder.write("out/" + name, "mine");
    EXPECT_REFUSED(c.export_to("out", force), "'" + name + "' in it is not a file of a checkpoint");
    EXPECT_TRUE(fs::exists(c.folder.file("out/" + name)));
    fs::remove(c.folder.file("out/" + name));
  }
  fs::create_directory(c.folder.file("out/LICENSE"));
  EXPECT_REFUSED(c.export_to("out", force), "'LICENSE' in it is not a file of a checkpoint");
  EXPECT_REFUSED(c.export_to("out/.", force), "give its own name");
  fs::create_directory(c.folder.file("photos"));
  c.folder.write("photos/a.jpg", "x");
  EXPECT_REFUSED(c.export_to("photos", force), "'a.jpg' in it is not a file of a checkpoint");
  EXPECT_TRUE(fs::exists(c.folder.file("photos/a.jpg")));
}

size_t entries(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

TEST(Export, NothingHalfWrittenIsLeft) {
  QuantizedCheckpoint c;
  c.run();
  const size_t before = entries(c.folder.path());
  EXPECT_REFUSED(c.export_to("nowhere/out"), "cannot create the folder");
  EXPECT_REFUSED(c.export_to("model.safetensors/out"), "cannot create the folder");
#if !defined(_WIN32)  // there tests/cross/windows.sh has a full disk
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit was{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &was), 0);
  const rlimit full{20'000, was.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  const std::string message = failure_of([&] { c.export_to("out"); });
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &was), 0);
  EXPECT_NE(message.find("cannot write"), std::string::npos) << message;
#endif
  ExportOptions stop;
  stop.progress = [](uint64_t done, uint64_t) {
    if (done) base::fail(GPTQ_E_CANCELLED, "stopped");
  };
  EXPECT_REFUSED(c.export_to("out", stop), "stopped");
  EXPECT_EQ(entries(c.folder.path()), before);
}

}  // namespace
}  // namespace gptq::test
