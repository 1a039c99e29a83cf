// SPDX-License-Identifier: Apache-2.0
// The dialects of GPTQ checkpoints: settings, rules for modules, zero points, whole layers.
#include <cmath>

#include "converter/dialects/linear.h"
#include "converter/dialects/zeros.h"
#include "converter_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;
using Words = std::vector<uint32_t>;

// An independent packing: a stream of bits, least significant first.
Words pack_stream(const std::vector<uint32_t>& values, uint32_t bits) {
  Words out((values.size() * bits + 31) / 32);
  for (size_t i = 0; i < values.size() * bits; ++i) out[i / 32] |= (values[i / bits] >> i % bits & 1) << i % 32;
  return out;
}

std::vector<uint8_t> zeros_of(const Words& words, uint32_t n, uint32_t bits, const QuantConfig& config, bool symmetric = false) {
  return unpack_zeros(words, n, 1, bits, choose_zeros(words, n, bits, symmetric, config).dialect);
}

TEST(Zeros, FingerprintsDecide) {
  const struct {
    uint32_t bits;
    Words v1, v2;
  } cases[] = {
      {2, {0x55555555}, {0xAAAAAAAA}},
      {3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}, {0x24924924, 0x49249249, 0x92492492}},
      {4, {0x77777777}, {0x88888888}},
      {8, {0x7F7F7F7F}, {0x80808080}},
  };
  QuantConfig v1, v2;
  v2.v2_zeros = true;
  for (const auto& c : cases) {
    const auto n = static_cast<uint32_t>(c.v1.size() * 32 / c.bits);
    EXPECT_TRUE(choose_zeros(c.v1, n, c.bits, true, v1).symmetric);
    EXPECT_EQ(choose_zeros(c.v1, n, c.bits, true, v1).warning, nullptr);
    EXPECT_TRUE(choose_zeros(c.v2, n, c.bits, true, v2).symmetric);
    for (const auto& [words, config] : {std::pair(c.v2, &v1), std::pair(c.v1, &v2)}) {  // mislabelled
      const ZerosChoice choice = choose_zeros(words, n, c.bits, true, *config);
      EXPECT_TRUE(choice.symmetric) << c.bits;
      EXPECT_NE(choice.warning, nullptr) << c.bits;
    }
  }
}

TEST(Zeros, FieldsPastTheOutputsDoNotCount) {
  const QuantConfig v1;
  EXPECT_TRUE(choose_zeros(Words{0x00000777}, 3, 4, true, v1).symmetric);
  EXPECT_FALSE(choose_zeros(Words{0x00000777}, 4, 4, true, v1).symmetric);
}

TEST(Zeros, WordWideBorrow) {
  QuantConfig config;
  const std::vector<uint32_t> zeros{3, 0, 5, 15, 0, 0, 9, 1, 7, 7, 7, 0, 7, 7, 7, 7};
  for (uint32_t bits : {4u, 8u}) {
    Words words = pack_stream(zeros, bits);
    for (uint32_t& w : words) w -= bits == 4 ? 0x11111111u : 0x01010101u;
    EXPECT_EQ(zeros_of(words, 16, bits, config), (std::vector<uint8_t>(zeros.begin(), zeros.end()))) << bits;
  }
  EXPECT_EQ(zeros_of({0xE4E4E4E4u - 0x55555555u}, 16, 2, config), (std::vector<uint8_t>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST(Zeros, ThreeBits) {
  std::vector<uint32_t> zeros, minus_one;
  for (uint32_t i = 0; i < 64; ++i) zeros.push_back(i * 5 % 8), minus_one.push_back((i * 5 + 7) % 8);
  const std::vector<uint8_t> expected(zeros.begin(), zeros.end());
  QuantConfig config;
  config.tool = Tool::gptqmodel;
  EXPECT_EQ(zeros_of(pack_stream(minus_one, 3), 64, 3, config), expected);
  Words wrong = pack_stream(zeros, 3);
  const uint32_t constants[] = {0x24924924, 0x92492492, 0x49249249};
  for (size_t i = 0; i < wrong.size(); ++i) wrong[i] -= constants[i % 3];
  config.wrong_3bit = true;
  EXPECT_EQ(zeros_of(wrong, 64, 3, config), expected);
  const QuantConfig unlabelled;
  const ZerosChoice choice = choose_zeros(Words{0x00000000, 0xB6DB6DB7, 0x49249249}, 32, 3, true, unlabelled);
  EXPECT_TRUE(choice.symmetric);
}

TEST(Zeros, DamageIsFoundAndReadAsItsWriterDoes) {
  // Zeros 5, 9, 0, 4, ...: the -1 of the third field fills all above it.
  const Words damaged{0xFFFFFF84};
  QuantConfig config;
  const ZerosChoice choice = choose_zeros(damaged, 8, 4, false, config);
  EXPECT_EQ(choice.damaged_words, 1u);
  EXPECT_EQ(zeros_of(damaged, 8, 4, config), (std::vector<uint8_t>{5, 9, 0, 0, 0, 0, 0, 0}));
  config.tool = Tool::gptqmodel;  // whose borrows are real
  EXPECT_EQ(choose_zeros(damaged, 8, 4, false, config).damaged_words, 0u);
  EXPECT_EQ(zeros_of(damaged, 8, 4, config), (std::vector<uint8_t>{5, 9, 0, 1, 1, 1, 1, 1}));
}

TEST(Zeros, SymmetricLabelOnAsymmetricZeros) {
  const QuantConfig config;
  const ZerosChoice choice = choose_zeros(Words{0x76543210}, 8, 4, true, config);
  EXPECT_FALSE(choice.symmetric);
  EXPECT_NE(choice.warning, nullptr);
}

TEST(ModuleRules, AsPythonsMatch) {
  ModuleRules rules;
  rules.add(R"(+:.*\.down_proj)", {8, 32, std::nullopt});
  rules.add(R"(model\.layers\.[01]\..*)", {2, std::nullopt, false});
  rules.add(R"(-:.*layers\.0\.(?:self_attn|mlp)\.(?=q_proj|up_proj))", {});
  rules.add("layers", {3, std::nullopt, std::nullopt});  // never: matching starts at the beginning
  const QuantSettings base{4, 128, true};
  EXPECT_FALSE(rules.apply("model.layers.0.self_attn.q_proj", base));
  EXPECT_EQ(rules.apply("model.layers.0.mlp.down_proj", base)->bits, 8u);  // the first that matches
  EXPECT_EQ(rules.apply("model.layers.0.mlp.down_proj", base)->group_size, 32);
  EXPECT_EQ(rules.apply("model.layers.1.mlp.gate_proj", base)->bits, 2u);
  EXPECT_FALSE(rules.apply("model.layers.1.mlp.gate_proj", base)->symmetric);
  EXPECT_EQ(rules.apply("model.layers.2.mlp.gate_proj", base)->bits, 4u);
  EXPECT_REFUSED(rules.add("(", {}), "no regular expression");
  ModuleRules slow;
  slow.add("(a+)+$", {});
  EXPECT_REFUSED(slow.apply(std::string(40, 'a') + "b", base), "too much work");
}

std::optional<QuantConfig> config_of(const std::string& config, const std::string& file = "", std::string* said = nullptr) {
  const TemporaryFolder folder;
  if (!file.empty()) folder.write("quantize_config.json", file);
  const JsonDocument document("config.json", config);
  Options options;
  options.warn = [&](std::string_view text) {
    if (said) *said += text;
  };
  return read_quant_config(folder.path(), document.root(), options);
}

TEST(QuantConfig, KeysAndPlaces) {
  EXPECT_FALSE(config_of("{}"));
  const auto inside = config_of(
      R"({"quantization_config":{"quant_method":"gptq","w_bit":3,"q_group_size":-1,"sym":false,"desc_act":true,)"
      R"("format":"gptq_v2","meta":{"quantizer":["gptqmodel:1.2.3"]}}})");
  ASSERT_TRUE(inside);
  EXPECT_EQ(inside->settings.bits, 3u);
  EXPECT_EQ(inside->settings.group_size, -1);
  EXPECT_FALSE(inside->settings.symmetric);
  EXPECT_TRUE(inside->activation_order && inside->v2_zeros && inside->wrong_3bit);
  EXPECT_EQ(inside->quantizer, "gptqmodel:1.2.3");
  const auto file = config_of("{}", R"({"bits":4,"group_size":128,"desc_act":false})");
  EXPECT_EQ(file->settings.bits, 4u);
  EXPECT_TRUE(file->settings.symmetric);
  for (const auto& [version, wrong] : {std::pair("0.8.9", false), {"0.9.0", true}, {"6.0.3", true}, {"6.0.4", false}, {"7.0.0", false}})
    EXPECT_EQ(config_of("{}", R"({"meta":{"quantizer":"gptqmodel:)" + std::string(version) + "\"}}")->wrong_3bit, wrong) << version;
}

// As transformers has it, config.json counts; the file beside it says what it does not.
TEST(QuantConfig, TwoPlaces) {
  const auto both = [](const std::string& inside, const std::string& beside, std::string& said) {
    return *config_of("{\"quantization_config\":{" + inside + "}}", "{" + beside + "}", &said);
  };
  std::string said;
  const QuantConfig differ = both(R"("bits":4,"group_size":32,"sym":true,"desc_act":true,"checkpoint_format":"gptq_v2")",
                                  R"("bits":8,"group_size":64,"sym":false,"desc_act":false,"checkpoint_format":"gptq")", said);
  EXPECT_TRUE(differ.settings.bits == 4 && differ.settings.group_size == 32 && differ.settings.symmetric && differ.activation_order && differ.v2_zeros);
  EXPECT_EQ(said, "config.json's quantization_config says bits 4, group_size 32, sym true, desc_act true, checkpoint_format gptq_v2, 'quantize_config.json' says "
                  "bits 8, group_size 64, sym false, desc_act false, checkpoint_format gptq: config.json's is used");
  EXPECT_EQ(both(R"("bits":4,"checkpoint_format":"gptq")", R"("w_bit":4,"format":"gptq_v2")", said = "").v2_zeros, false);
  EXPECT_EQ(said, "config.json's quantization_config says checkpoint_format gptq, 'quantize_config.json' says checkpoint_format gptq_v2: config.json's is used");
  const QuantConfig completed = both(R"("bits":4)", R"("group_size":64,"sym":false,"format":"gptq_v2","model_file_base_name":"net","meta":{"quantizer":"gptqmodel:6.0.3"})", said = "");
  EXPECT_TRUE(completed.settings.bits == 4 && completed.settings.group_size == 64 && !completed.settings.symmetric && completed.v2_zeros && completed.wrong_3bit);
  EXPECT_EQ(completed.file_names, std::vector<std::string>{"net"});
  EXPECT_EQ(said, "");
  EXPECT_EQ(both(R"("bits":4)", R"("quant_method":"awq")", said = "").settings.bits, 4u);
  EXPECT_NE(said.find("it is left out, config.json has a quantization_config"), std::string::npos) << said;
  EXPECT_REFUSED(both(R"("quant_method":"awq")", R"("bits":4)", said), "'awq' is not supported");
}

TEST(QuantConfig, NamesOfTheWeights) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(config_of("{}", R"({"bits":4,"group_size":128})")->file_names, Names{"gptq_model-4bit-128g"});
  EXPECT_EQ(config_of("{}", R"({"bits":4,"group_size":128,"model_file_base_name":null})")->file_names, Names{"gptq_model-4bit-128g"});
  EXPECT_EQ(config_of("{}", R"({"bits":4,"model_file_base_name":"net"})")->file_names, Names{"net"});
  EXPECT_EQ(config_of("{}", R"({"bits":4,"model_file_base_name":"net.safetensors"})")->file_names, Names{"net"});
}

TEST(QuantConfig, RefusesOtherFormatsByName) {
  const struct {
    const char *fields, *words;
  } cases[] = {
      {R"("quant_method":"awq")", "'awq' is not supported"},
      {R"("zero_point":true,"w_bit":4,"version":"GEMM")", "'awq' is not supported"},
      {R"("quant_method":"compressed-tensors")", "'compressed-tensors' is not supported"},
      {R"("quant_method":"gptq","checkpoint_format":"marlin")", "'marlin' is not supported"},
      {R"("quant_method":"gptq","is_marlin_format":true)", "'marlin' is not supported"},
      {R"("quant_method":"gptq","checkpoint_format":"gptq_p")", "'gptq_p' is not supported"},
      {R"("quant_method":"gptq","pack_dtype":"int64")", "pack_dtype 'int64'"},
      {R"("quant_method":"gptq","rotation":"hadamard")", "'rotation'"},
      {R"("quant_method":"auto-round","packing_format":"auto_round:awq")", "not supported"},
      {R"("bits":5)", "5-bit"},
      {R"("bits":4,"group_size":0)", "group_size"},
      {R"("bits":4,"dynamic":{"(":{}})", "no regular expression"},
      {R"("bits":4,"dynamic":{"a":1})", "must hold an object"},
  };
  for (const auto& c : cases) EXPECT_REFUSED(config_of("{}", "{" + std::string(c.fields) + "}"), c.words);
}

// A layer of k inputs and n outputs in a folder of its own.
class LayerFolder {
 public:
  LayerFolder(uint32_t n, uint32_t k, uint32_t bits, uint32_t groups) : n_(n), k_(k) {
    Words qweight, zeros;
    std::vector<Words> columns(n);
    for (uint32_t row = 0; row < n; ++row) {
      std::vector<uint32_t> codes;
      for (uint32_t i = 0; i < k; ++i) codes.push_back(code(row, i) & ((1u << bits) - 1));
      columns[row] = pack_stream(codes, bits);
    }
    for (size_t w = 0; w < columns[0].size(); ++w)
      for (uint32_t row = 0; row < n; ++row) qweight.push_back(columns[row][w]);
    for (uint32_t g = 0; g < groups; ++g)
      for (uint32_t w : pack_stream(std::vector<uint32_t>(n, (1u << (bits - 1)) - 1), bits)) zeros.push_back(w);
    tensors["m.qweight"] = tensor("I32", {columns[0].size(), n}, qweight);
    tensors["m.qzeros"] = tensor("I32", {groups, zeros.size() / groups}, zeros);
    std::vector<float> scales;
    for (uint32_t i = 0; i < groups * n; ++i) scales.push_back(0.001f * static_cast<float>(i + 1));
    tensors["m.scales"] = tensor("F32", {groups, n}, scales);
  }
  static uint32_t code(uint32_t row, uint32_t i) { return row * 7 + i * 3; }
  void add_g_idx(const std::vector<int32_t>& values) { tensors["m.g_idx"] = tensor("I32", {values.size()}, values); }

  QuantizedWeight read(uint32_t bits, int32_t group_size, bool symmetric = true, bool activation_order = false) {
    warnings.clear();
    folder_.write("model.safetensors", safetensors(tensors));
    QuantConfig config;
    config.settings = {bits, group_size, symmetric};
    config.activation_order = activation_order;
    const TensorFolder files(folder_.path());
    const Options options{[this](std::string_view text) { warnings.emplace_back(text); }};
    return read_gptq_linear(files, "m", n_, k_, config, options);
  }

  std::map<std::string, RawTensor> tensors;
  std::vector<std::string> warnings;

 private:
  uint32_t n_, k_;
  TemporaryFolder folder_;
};

TEST(GptqLinear, CodesScalesAndGroups) {
  for (const uint32_t bits : {2u, 3u, 4u, 8u})
    for (const uint32_t k : {65u, 70u, 96u}) {  // the last words may be partly used
      LayerFolder layer(21, k, bits, 3);
      const QuantizedWeight w = layer.read(bits, 32);
      EXPECT_EQ(w.bits, bits);
      ASSERT_EQ(w.codes.size(), 21 * k);
      for (uint32_t row = 0; row < 21; ++row)
        for (uint32_t i = 0; i < k; ++i)
          ASSERT_EQ(w.codes[row * k + i], LayerFolder::code(row, i) & ((1u << bits) - 1)) << bits << " " << k;
      EXPECT_FLOAT_EQ(w.scales[2 * 3 + 1], 0.001f * (1 * 21 + 2 + 1));
      EXPECT_TRUE(w.zeros.empty());
      EXPECT_TRUE(layer.warnings.empty());
    }
}

TEST(GptqLinear, ShapesWinOverTheConfig) {
  LayerFolder layer(16, 128, 4, 4);
  EXPECT_EQ(layer.read(4, 32).group_size, 32);
  EXPECT_TRUE(layer.warnings.empty());
  const QuantizedWeight w = layer.read(8, 128);
  EXPECT_EQ(w.bits, 4u);
  EXPECT_EQ(w.group_size, 32);
  EXPECT_EQ(layer.warnings.size(), 2u);
  LayerFolder short_last(16, 352, 4, 3);
  EXPECT_EQ(short_last.read(0, 0).group_size, 128);
  EXPECT_TRUE(short_last.warnings.empty());  // nothing said is no contradiction
}

TEST(GptqLinear, GroupIndex) {
  LayerFolder layer(16, 64, 4, 2);
  layer.add_g_idx(std::vector<int32_t>(64, 0));
  EXPECT_TRUE(layer.read(4, 32).g_idx.empty());
  std::vector<int32_t> mixed(64);
  for (int i = 0; i < 64; ++i) mixed[static_cast<size_t>(i)] = i % 2;
  layer.add_g_idx(mixed);
  EXPECT_TRUE(std::ranges::equal(layer.read(4, 32).g_idx, mixed));
  for (const int32_t bad : {2, -1, INT32_MIN}) {
    mixed[40] = bad;
    layer.add_g_idx(mixed);
    EXPECT_REFUSED(layer.read(4, 32), "holds group");
  }
  layer.add_g_idx({0, 1});
  EXPECT_REFUSED(layer.read(4, 32), "where I32 [64] belongs");
}

template <class T>
void check_group_index_as(const char* dtype, const std::vector<uint64_t>& shape) {
  LayerFolder layer(16, 64, 4, 2);
  std::vector<T> groups(64);
  for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<T>(i / 3 % 2);
  layer.tensors["m.g_idx"] = tensor(dtype, shape, groups);
  const auto read = layer.read(4, 32).g_idx;
  ASSERT_EQ(read.size(), groups.size()) << dtype;
  for (size_t i = 0; i < groups.size(); ++i) EXPECT_EQ(read[i], static_cast<int32_t>(i / 3 % 2)) << dtype;
  for (const T bad : {static_cast<T>(2), static_cast<T>(~T{0}), static_cast<T>(T{1} << (8 * sizeof(T) - 1))}) {
    groups[63] = bad;
    layer.tensors["m.g_idx"] = tensor(dtype, shape, groups);
    EXPECT_REFUSED(layer.read(4, 32), "holds group");
  }
}

TEST(GptqLinear, GroupIndexOfEveryInteger) {
  check_group_index_as<int64_t>("I64", {64});
  check_group_index_as<uint64_t>("U64", {64});
  check_group_index_as<int32_t>("I32", {1, 64});
  check_group_index_as<uint32_t>("U32", {64, 1});
  check_group_index_as<int16_t>("I16", {64});
  check_group_index_as<uint16_t>("U16", {64});
  check_group_index_as<int8_t>("I8", {64});
  check_group_index_as<uint8_t>("U8", {64});
  LayerFolder layer(16, 64, 4, 2);
  layer.tensors["m.g_idx"] = tensor("F32", {64}, std::vector<float>(64));
  EXPECT_REFUSED(layer.read(4, 32), "where I32 [64] belongs");
  layer.tensors["m.g_idx"] = tensor("I64", {32}, std::vector<int64_t>(32));
  EXPECT_REFUSED(layer.read(4, 32), "where I32 [64] belongs");
}

TEST(GptqLinear, GroupIndexEmptyOrMissing) {
  LayerFolder layer(16, 64, 4, 2);
  const QuantizedWeight without = layer.read(4, 32);
  EXPECT_TRUE(without.g_idx.empty() && layer.warnings.empty());
  for (const char* dtype : {"I32", "I64", "F32"}) {
    layer.tensors["m.g_idx"] = tensor(dtype, {0}, std::vector<int32_t>());
    EXPECT_TRUE(std::ranges::equal(layer.read(4, 32).codes, without.codes));
    EXPECT_TRUE(layer.warnings.empty());
  }
  layer.read(4, 32, true, true);
  ASSERT_EQ(layer.warnings.size(), 1u);
  EXPECT_NE(layer.warnings[0].find("desc_act, but there is no g_idx"), std::string::npos);
}

TEST(GptqLinear, ZerosMissingWhereSymmetric) {
  for (const uint32_t bits : {2u, 3u, 4u, 8u}) {
    LayerFolder layer(16, 64, bits, 2);
    const QuantizedWeight with = layer.read(bits, 32);
    for (int empty = 0; empty < 2; ++empty) {
      layer.tensors.erase("m.qzeros");
      if (empty) layer.tensors["m.qzeros"] = tensor("I32", {0}, std::vector<int32_t>());
      const QuantizedWeight without = layer.read(bits, 32);
      EXPECT_TRUE(with.zeros.empty() && without.zeros.empty() && std::ranges::equal(with.codes, without.codes)) << bits;
      EXPECT_TRUE(layer.warnings.empty());
    }
    EXPECT_REFUSED(layer.read(bits, 32, false), "qzeros");
  }
}

TEST(GptqLinear, SaysWhereNothingIsQuantized) {
  TemporaryFolder folder;
  std::vector<std::string> warnings;
  const Options options{[&](std::string_view text) { warnings.emplace_back(text); }};
  QuantConfig config;
  config.file = "config.json: quantization_config";
  config.settings.bits = 4;
  folder.write("model.safetensors", safetensors({{"m.weight", tensor<float>("F32", {1}, {1})}}));
  warn_of_no_quantized(TensorFolder(folder.path()), folder.path(), config, options);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].find("; '"), std::string::npos) << warnings[0];
  folder.write("net.safetensors", safetensors({{"m.qweight", tensor<int32_t>("I32", {1}, {1})}}));
  warn_of_no_quantized(TensorFolder(folder.path()), folder.path(), config, options);
  EXPECT_NE(warnings.at(1).find("; 'net.safetensors' is another file"), std::string::npos) << warnings[1];
  warn_of_no_quantized(TensorFolder(folder.path(), {.names = {"net"}}), folder.path(), config, options);
  EXPECT_EQ(warnings.size(), 2u);
}

TEST(GptqLinear, RefusesWrongTensors) {
  const LayerFolder good(16, 64, 4, 2);
  const auto read = [&](const char* name, const RawTensor& t) {
    LayerFolder layer(16, 64, 4, 2);
    layer.tensors[name] = t;
    layer.read(4, 32);
  };
  EXPECT_REFUSED(read("m.qweight", tensor("I32", {7, 16}, Words(112))), "fits no number of bits");
  EXPECT_REFUSED(read("m.qweight", tensor("I32", {8, 15}, Words(120))), "belongs");
  EXPECT_REFUSED(read("m.qweight", tensor("I64", {8, 16}, std::vector<int64_t>(128))), "not a matrix");
  EXPECT_REFUSED(read("m.qzeros", tensor("I32", {2, 3}, Words(6))), "belongs");
  EXPECT_REFUSED(read("m.qzeros", tensor("I32", {4}, Words(4))), "not a matrix");
  EXPECT_REFUSED(read("m.scales", tensor("F32", {65, 16}, std::vector<float>(65 * 16))), "groups");
  EXPECT_REFUSED(read("m.scales", tensor("F32", {0, 16}, std::vector<float>())), "groups");
  EXPECT_REFUSED(read("m.scales", tensor("F32", {2, 16}, std::vector<float>(32, INFINITY))), "NaN or infinity");
  EXPECT_REFUSED(read("m.scales", tensor("F16", {2, 16}, std::vector<uint16_t>(32, 0x7E00))), "NaN or infinity");
  LayerFolder missing(16, 64, 4, 2);
  missing.tensors.erase("m.qzeros");
  EXPECT_REFUSED(missing.read(4, 32, false), "no tensor 'm.qzeros'");
}

}  // namespace
}  // namespace gptq::test
