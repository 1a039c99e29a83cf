// SPDX-License-Identifier: Apache-2.0
// Whole checkpoints: every weight of the file, read by the reference kernel, against GPTQ's formula on the safetensors themselves.
#include <cmath>
#include <cstdlib>

#include "converter/convert.h"
#include "converter/floats.h"
#include "converter/inspect.h"
#include "converter/json.h"
#include "converter/safetensors/folder.h"
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

std::string hf_name(std::string name) {
  static const std::pair<const char*, const char*> table[] = {
      {".attn_norm", ".input_layernorm"}, {".mlp_norm", ".post_attention_layernorm"},
      {".q_norm", ".self_attn.q_norm"},   {".k_norm", ".self_attn.k_norm"},
      {".q", ".self_attn.q_proj"},        {".k", ".self_attn.k_proj"},
      {".v", ".self_attn.v_proj"},        {".o", ".self_attn.o_proj"},
      {".gate", ".mlp.gate_proj"},        {".up", ".mlp.up_proj"},
      {".down", ".mlp.down_proj"}};
  if (name == "embed") return "model.embed_tokens";
  if (name == "final_norm") return "model.norm";
  if (name == "head") return "lm_head";
  for (const auto& [ours, theirs] : table)
    if (name.ends_with(ours)) return "model." + name.substr(0, name.size() - std::string(ours).size()) + theirs;
  return name;
}

// The formula, field by field and as slow as it reads.
class Layer {
 public:
  Layer(const TensorFolder& tensors, const std::string& module, uint32_t n, uint32_t k, bool v2) : n_(n) {
    qweight_ = words(tensors, module + ".qweight");
    qzeros_ = words(tensors, module + ".qzeros");
    const TensorEntry& scales = tensors.get(module + ".scales");
    scales_ = to_floats(scales.dtype, tensors.read(scales));
    groups_ = static_cast<uint32_t>(scales.shape[0]);
    const uint64_t rows = qweight_.size() / n;
    bits_ = rows * 32 % k == 0 ? static_cast<uint32_t>(rows * 32 / k) : 0;
    if (const TensorEntry* entry = tensors.find(module + ".g_idx")) {
      const auto bytes = tensors.read(*entry);
      g_idx_.resize(k);
      std::memcpy(g_idx_.data(), bytes.data(), bytes.size());
    }
    if (v2) return;
    // zero - 1 is stored; 2, 4 and 8 bits with borrows between the fields of a word, 3 bits within the field.
    v1_3bit_ = bits_ == 3;
    if (!v1_3bit_)
      for (uint32_t& w : qzeros_) w += bits_ == 2 ? 0x55555555u : bits_ == 4 ? 0x11111111u : 0x01010101u;
  }

  float at(uint32_t row, uint32_t i) const {
    const auto g = static_cast<uint64_t>(g_idx_.at(i));
    const uint32_t q = field(qweight_, n_, row, uint64_t{i} * bits_);
    const uint64_t row_words = qzeros_.size() / groups_;
    uint32_t zero = 0;
    for (uint32_t b = 0; b < bits_; ++b)
      zero |= (qzeros_[g * row_words + (uint64_t{row} * bits_ + b) / 32] >> (uint64_t{row} * bits_ + b) % 32 & 1) << b;
    if (v1_3bit_) zero = (zero + 1) % 8;
    return scales_[g * n_ + row] * static_cast<float>(static_cast<int>(q) - static_cast<int>(zero));
  }

 private:
  static std::vector<uint32_t> words(const TensorFolder& tensors, const std::string& name) {
    const auto bytes = tensors.read(tensors.get(name));
    std::vector<uint32_t> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  uint32_t field(const std::vector<uint32_t>& words, uint64_t stride, uint64_t column, uint64_t bit) const {
    uint32_t out = 0;
    for (uint32_t b = 0; b < bits_; ++b) out |= (words[(bit + b) / 32 * stride + column] >> (bit + b) % 32 & 1) << b;
    return out;
  }

  uint32_t n_, bits_ = 0, groups_ = 0;
  bool v1_3bit_ = false;
  std::vector<uint32_t> qweight_, qzeros_;
  std::vector<float> scales_;
  std::vector<int32_t> g_idx_;
};

// A tensor of the file with its data.
struct Loaded {
  kernels::Matrix matrix{};
  std::vector<std::vector<std::byte>> parts;
};

Loaded load(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot) {
  Loaded out;
  model::check_tensor(tensor, slot);
  out.matrix = {static_cast<kernels::Kind>(tensor.kind()),
                tensor.scales_f32(),
                tensor.n(),
                tensor.k(),
                tensor.k_padded(),
                tensor.group(),
                nullptr,
                nullptr,
                nullptr,
                nullptr};
  for (const format::fb::Part* part : *tensor.parts()) {
    auto& bytes = out.parts.emplace_back(part->bytes());
    reader.read_part(*part, bytes, std::pmr::get_default_resource());
    if (part->role() == format::fb::Role::codes) out.matrix.codes = bytes.data();
    if (part->role() == format::fb::Role::scales) out.matrix.scales = bytes.data();
    if (part->role() == format::fb::Role::zeros) out.matrix.zeros = reinterpret_cast<const uint8_t*>(bytes.data());
    if (part->role() == format::fb::Role::perm) out.matrix.perm = reinterpret_cast<const int32_t*>(bytes.data());
  }
  return out;
}

struct Counts {
  uint64_t values = 0, quantized = 0, wrong = 0;
};

void compare(const TensorFolder& tensors, const model::Slot& slot, const Loaded& loaded, bool v2, Counts& counts) {
  const std::string name(slot.name), suffix = ".bias";
  const bool bias = name.ends_with(suffix);
  const std::string module = hf_name(bias ? name.substr(0, name.size() - suffix.size()) : name);
  const uint32_t step = uint64_t{slot.n} * slot.k > 200'000 ? 37 : 1;  // of big matrices some rows
  std::vector<float> row(slot.k);
  const auto dequantize = kernels::select_kernels(GPTQ_CPU_REFERENCE).dequantize_row;
  const bool quantized = !bias && tensors.find(module + ".qweight");
  std::vector<float> dense;
  std::unique_ptr<Layer> layer;
  if (quantized) {
    layer = std::make_unique<Layer>(tensors, module, slot.n, slot.k, v2);
  } else {
    const TensorEntry& entry = tensors.get(module + (bias ? ".bias" : ".weight"));
    dense = to_floats(entry.dtype, tensors.read(entry));
  }
  for (uint32_t r = 0; r < slot.n; r += step) {
    dequantize({&loaded.matrix, r, row.data()});
    for (uint32_t i = 0; i < slot.k; ++i) {
      const float expected = quantized ? layer->at(r, i) : dense[uint64_t{r} * slot.k + i];
      counts.wrong += std::memcmp(&row[i], &expected, 4) != 0 && !(row[i] == 0 && expected == 0);
      ++counts.values;
      counts.quantized += quantized;
    }
  }
}

void convert_and_compare(const fs::path& folder, format::Compression compression) {
  const TemporaryFolder target;
  const std::string path = target.file("m.gptq");
  std::vector<std::string> warnings;
  const Options options{[&](std::string_view text) { warnings.emplace_back(text); }};
  ConvertOptions how;
  how.codes = compression;
  convert::convert(*open_source(folder.string(), options), path, how);
  const base::FileSource file(path);
  EXPECT_GT(verify(file).n_chunks, 0u);

  const format::Reader reader(file, std::pmr::get_default_resource());
  const auto spec = model::check_spec(*reader.manifest().spec(), std::pmr::get_default_resource());
  const TensorFolder tensors(folder.string());
  const bool v2 = folder.string().find("v2") != std::string::npos;
  Counts counts;
  size_t found = 0;
  for (const model::Slot& slot : model::weight_slots(spec, std::pmr::get_default_resource()))
    if (const auto* tensor = reader.find(slot.name)) {
      compare(tensors, slot, load(reader, *tensor, slot), v2, counts);
      ++found;
    }
  EXPECT_EQ(found, reader.manifest().tensors()->size());
  EXPECT_EQ(counts.wrong, 0u);
  EXPECT_GT(counts.values, 100'000u);
  EXPECT_EQ(counts.quantized > 0, folder.string().find("-w") != std::string::npos) << folder;
  for (const std::string& warning : warnings) EXPECT_NE(warning.find("no tokenizer"), std::string::npos) << warning;
}

TEST(Checkpoints, EveryWeight) {
  const auto folders = checkpoint_folders();
  if (folders.empty()) GTEST_SKIP() << "GPTQ_TEST_DATA does not name the folder with checkpoints/";
  for (const fs::path& folder : folders) {
    SCOPED_TRACE(folder.filename().string());
    convert_and_compare(folder, format::Compression::stored);
    if (folder.filename().string().starts_with("baby")) convert_and_compare(folder, format::Compression::zstd);
  }
}

bool says(const std::string& facts, const std::string& key, const std::string& value) {
  const size_t at = facts.find("  " + key + " ");
  return at != facts.npos && facts.substr(at, facts.find('\n', at) - at).ends_with(" " + value);
}

TEST(Checkpoints, Heads) {
  SmallCheckpoint c;
  EXPECT_TRUE(says(c.run(), "tied_head", "no"));
  EXPECT_EQ(c.warnings.size(), 1u);  // no tokenizer
  EXPECT_TRUE(says(c.run(R"(,"tie_word_embeddings":true)"), "tied_head", "yes"));  // twice the same
  EXPECT_FALSE(c.warned("lm_head"));
  c.tensors["lm_head.weight"].bytes[5] ^= 1;
  EXPECT_TRUE(says(c.run(R"(,"tie_word_embeddings":true)"), "tied_head", "no"));
  EXPECT_TRUE(c.warned("another lm_head"));
  c.tensors.erase("lm_head.weight");
  EXPECT_TRUE(says(c.run(), "tied_head", "yes"));
  EXPECT_TRUE(c.warned("the config does not tie it"));
}

TEST(Checkpoints, Biases) {
  SmallCheckpoint c;
  EXPECT_REFUSED(c.run(R"(,"attention_bias":true)"), "no tensor 'model.layers.0.self_attn.q_proj.bias'");
  c.tensors["model.layers.0.self_attn.q_proj.bias"] = tensor("F32", {8}, std::vector<float>(8));
  c.run();
  EXPECT_FALSE(c.warned("bias"));  // zeros, as quantizers write them
  c.tensors["model.layers.0.self_attn.q_proj.bias"] = tensor("F32", {8}, std::vector<float>(8, 1));
  c.run();
  EXPECT_TRUE(c.warned("q_proj: its bias is used, although config.json does not mention it"));
}

// Of one wrong key there is one warning, however many matrices it is wrong for.
TEST(Checkpoints, OneWarningForAllMatrices) {
  QuantizedCheckpoint c;
  c.quantize_all({4, 32});
  c.run(R"(,"quantization_config":{"bits":8,"group_size":16,"desc_act":true})");
  EXPECT_TRUE(c.warned("model.layers.0.self_attn.q_proj: the config says 8 bits, its shape says 4 (and so of 13 more)"));
  EXPECT_TRUE(c.warned("model.layers.0.self_attn.q_proj: the config says group size 16, its shapes say 32 (and so of 13 more)"));
  EXPECT_EQ(c.warnings.size(), 3u);  // and that there is no tokenizer
}

TEST(Checkpoints, WrongAndMissingTensors) {
  SmallCheckpoint c;
  c.tensors["model.layers.1.mlp.up_proj.weight"] = tensor<float>("F32", {1}, {1});
  c.run();
  EXPECT_TRUE(c.warned("1 tensor is not part of this kind of model and left out: model.layers.1.mlp.up_proj.weight"));
  const auto changed = [](const char* name, const RawTensor& t) {
    SmallCheckpoint other;
    other.tensors[name] = t;
    return failure_of([&] { other.run(); });
  };
  EXPECT_NE(changed("model.norm.weight", tensor("F32", {7}, std::vector<float>(7))).find("F32 [7] where config.json wants F32 [8]"),
            std::string::npos);
  EXPECT_NE(changed("lm_head.weight", tensor("F64", {10, 8}, std::vector<double>(80))).find("must be F16, BF16 or F32"), std::string::npos);
  EXPECT_NE(changed("model.norm.weight", tensor("F32", {8}, std::vector<float>(8, NAN))).find("final_norm"), std::string::npos);
  EXPECT_NE(changed("model.layers.0.mlp.up_proj.weight_packed", tensor("I32", {1}, std::vector<int32_t>(1))).find("compressed-tensors"),
            std::string::npos);
  c.tensors.erase("model.layers.0.mlp.up_proj.weight");
  EXPECT_REFUSED(c.run(), "no weights for 'layers.0.up' (12 x 8)");
}

TEST(Checkpoints, NothingIsLeftBehind) {
  SmallCheckpoint c;
  c.tensors.erase("model.layers.0.mlp.down_proj.weight");
  EXPECT_REFUSED(c.run(), "layers.0.down");
  for (const auto& entry : fs::directory_iterator(c.folder.path()))
    EXPECT_NE(entry.path().filename().string().substr(0, 3), "out") << entry.path();
}

TEST(Checkpoints, OpenSource) {
  EXPECT_REFUSED(open_source("/nowhere/at/all", {}), "there is no");
  const TemporaryFolder folder;
  folder.write("model.safetensors", "x");
  folder.write("model.bin", "x");
  EXPECT_REFUSED(open_source(folder.file("model.safetensors"), {}), "name the folder");
  EXPECT_REFUSED(open_source(folder.file("model.bin"), {}), "neither");
  EXPECT_REFUSED(open_source(folder.path(), {}), "config.json");
}

// Every byte of config, quantization config and header changed in turn: an answer or a message, never more.
TEST(Checkpoints, HostileBytes) {
  SmallCheckpoint c;
  const std::string config =
      c.config +
      R"(,"rope_scaling":{"type":"yarn","factor":4.0},"quantization_config":{"bits":4,"group_size":8,"dynamic":{"-:.*mlp.*":{}}}})";
  const std::string weights = safetensors(c.tensors);
  size_t refused = 0, accepted = 0;
  const auto attempt = [&](const std::string& config_bytes, const std::string& weight_bytes) {
    c.folder.write("config.json", config_bytes);
    c.folder.write("model.safetensors", weight_bytes);
    ConvertOptions how;
    how.replace = true;
    try {
      convert::convert(*open_source(c.folder.path(), {}), c.folder.file("out.gptq"), how);
      ++accepted;
    } catch (const base::Failure&) {
      ++refused;
    }
  };
  for (size_t i = 0; i < config.size(); ++i)
    for (const char byte : {'"', '9', static_cast<char>(config[i] ^ 0x80)}) {
      std::string changed = config;
      changed[i] = byte;
      attempt(changed, weights);
    }
  for (size_t i = 0; i < config.size(); i += 3) attempt(config.substr(0, i), weights);
  for (size_t i = 0; i < 600; ++i) {
    std::string changed = weights;
    changed[i] = static_cast<char>(changed[i] ^ (1 << i % 8));
    attempt(config, changed);
  }
  EXPECT_GT(refused, 900u);
  EXPECT_GT(accepted, 0u);
}

TEST(Checkpoints, WeightsThatAreNotFinite) {
  for (const float bad : {NAN, INFINITY}) {
    SmallCheckpoint c;
    std::vector<float> values(64, 1);
    values[63] = bad;
    c.tensors["model.layers.0.self_attn.v_proj.weight"] = tensor("F32", {8, 8}, values);
    EXPECT_REFUSED(c.run(), "tensor 'layers.0.v': it holds NaN or infinity");
  }
}

// Saved as its body alone, a model has no "model." before its names, and a head only where the config ties it.
TEST(Checkpoints, BodyAlone) {
  SmallCheckpoint c;
  std::map<std::string, RawTensor> body;
  for (auto& [name, t] : c.tensors) body[name.starts_with("model.") ? name.substr(6) : name] = t;
  c.tensors = std::move(body);
  c.config.replace(c.config.find("LlamaForCausalLM"), 16, "LlamaModel");
  EXPECT_NO_THROW(c.run());
  c.tensors.erase("lm_head.weight");
  EXPECT_REFUSED(c.run(), "the body of a model alone, as 'LlamaModel' is: there is no 'lm_head', and the config does not tie it");
  EXPECT_NO_THROW(c.run(R"(,"tie_word_embeddings":true)"));
  c.tensors.erase("layers.0.mlp.up_proj.weight");
  EXPECT_REFUSED(c.run(R"(,"tie_word_embeddings":true)"), "no weights for 'layers.0.up'");
}

}  // namespace
}  // namespace gptq::test
