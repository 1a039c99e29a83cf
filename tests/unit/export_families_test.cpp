// SPDX-License-Identifier: Apache-2.0
// Every family there and back: the spec and the bytes of every weight are the same after export and import, and names
// are the original's.
#include <cstdlib>
#include <sstream>

#include "converter/inspect.h"
#include "converter/synth.h"
#include "export_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;
namespace fs = std::filesystem;

std::vector<std::string> family_folders() {
  const char *data = std::getenv("GPTQ_TEST_DATA"), *golden = std::getenv("GPTQ_GOLDEN");
  const fs::path parent = data ? fs::path(data) / "families" : fs::path(golden ? golden : "tests/golden") / "families";
  std::vector<std::string> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error))
    if (fs::exists(entry.path() / "config.json")) out.push_back(entry.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

// Nothing of these folders is left out, and nothing may be said to be.
std::string convert_folder(const std::string& folder, const std::string& path) {
  ConvertOptions how;
  how.replace = true;
  Options options;
  options.warn = [&](std::string_view text) { EXPECT_EQ(text.find("left out"), text.npos) << folder << ": " << text; };
  convert::convert(*open_source(folder, options), path, how);
  return path;
}

std::string exported(const std::string& path, const std::string& folder, ZerosFormat zeros = ZerosFormat::automatic) {
  ExportOptions how;
  how.zeros = zeros;
  how.replace = true;
  export_hf(base::FileSource(path), folder, how);
  return folder;
}

std::string spec_of(const std::string& path) {
  const base::FileSource file(path);
  const format::Reader reader(file, std::pmr::get_default_resource());
  format::fb::SpecT spec;
  reader.manifest().spec()->UnPackTo(&spec);
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(format::fb::Spec::Pack(builder, &spec));
  return {reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize()};
}

// A quantized matrix that GPTQ checkpoints cannot have comes back in 16 bits.
bool is_of_odd_shape(const std::string& bytes) {
  std::istringstream facts(bytes.substr(0, 60));
  uint32_t kind = 0, n = 0, k = 0;
  facts >> kind >> n >> k;
  return kernels::is_quantized(static_cast<kernels::Kind>(kind)) && (n % 32 != 0 || k % 32 != 0);
}

void expect_same_model(const std::string& first, const std::string& second) {
  EXPECT_EQ(spec_of(first), spec_of(second));
  const auto before = tensors_of(first), after = tensors_of(second);
  EXPECT_EQ(before.size(), after.size());
  std::string different;
  for (const auto& [name, bytes] : before)
    if (const auto found = after.find(name); found == after.end() || (found->second != bytes && !is_of_odd_shape(bytes))) different += name + "; ";
  EXPECT_EQ(different, "");
}

class ExportFamilies : public testing::TestWithParam<std::string> {};

TEST_P(ExportFamilies, ComeBack) {
  const TemporaryFolder work;
  const std::string first = convert_folder(GetParam(), work.file("first.gptq")),
                    out = exported(first, work.file("out"));
  expect_same_model(first, convert_folder(out, work.file("second.gptq")));
  // Under the names of the class every tensor is the original's; asymmetric v1 becomes v2, which changes zero points
  // alone.
  const bool v2 = GetParam().find("asym") != std::string::npos;
  const TensorFolder original(GetParam()), again(out);
  size_t renamed = 0;
  for (const std::string_view view : again.names()) {
    const std::string name(view);
    const TensorEntry *x = original.find(name), *y = again.find(name);
    const bool undone = name.ends_with(".weight") && original.find(name.substr(0, name.size() - 7) + ".qweight");
    renamed += !x && !undone;
    if (!x) continue;
    EXPECT_EQ(describe(*x), describe(*y)) << name;
    EXPECT_TRUE((v2 && name.ends_with(".qzeros")) || original.read(*x) == again.read(*y)) << name;
  }
  // In these the folder has other names than the class: without a prefix, with that of a model with eyes, or
  // GPTQModel's; or a tied head that is written out, since it has a bias.
  const std::string folder = fs::path(GetParam()).filename().string();
  const auto others = {"bloom-fp16",         "gpt2-fp16", "gemma3-conditional", "qwen3-5-moe-conditional",
                       "mixtral-gptqmodel7", "phi3-split", "phi2-tied"};
  EXPECT_EQ(renamed > 0,
            std::any_of(others.begin(), others.end(), [&](const char* other) { return folder.starts_with(other); }))
      << renamed;
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, ExportFamilies, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = fs::path(info.param).filename().string();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// A model of any family's shape with random weights: made, exported, imported, without a weight that is missing or left
// over.
class SynthFamilies : public ExportFamilies {};

TEST_P(SynthFamilies, ComeBack) {
  const TemporaryFolder work;
  for (const uint32_t bits : {4u, 16u}) {
    const auto source = make_synth(GetParam() + "/config.json", {.bits = bits, .group_size = 32});
    ConvertOptions how;
    how.replace = true;
    convert::convert(*source, work.file("first.gptq"), how);
    const std::string facts = inspect(base::FileSource(work.file("first.gptq")), false);
    EXPECT_EQ(facts.find("cannot be run"), facts.npos) << facts;
    expect_same_model(work.file("first.gptq"),
                      convert_folder(exported(work.file("first.gptq"), work.file("out")), work.file("second.gptq")));
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, SynthFamilies, testing::ValuesIn(family_folders()), [](const auto& info) {
  std::string name = fs::path(info.param).filename().string();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// A Mixtral whose file says something else of its config.
class OtherConfig final : public ModelSource {
 public:
  OtherConfig(const std::string& folder, const std::string& from, const std::string& to)
      : inner_(open_source(folder, {})), description_(inner_->description()) {
    for (auto& [key, value] : description_.meta) {
      if (key != "config") continue;
      if (from.empty())
        key = "nothing";
      else
        value.replace(value.find(from), from.size(), to);
    }
  }
  const ModelDescription& description() const override { return description_; }
  Weight load(const model::Slot& slot) override { return inner_->load(slot); }

 private:
  std::unique_ptr<ModelSource> inner_;
  ModelDescription description_;
};

TEST(ExportFamily, ConfigIsMissingOrOfAnotherModel) {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  const std::string mixtral = std::string(golden ? golden : "tests/golden") + "/families/mixtral-w4-g32";
  const TemporaryFolder work;
  const auto export_with = [&](const std::string& from, const std::string& to) {
    OtherConfig source(mixtral, from, to);
    ConvertOptions how;
    how.replace = true;
    convert::convert(source, work.file("out.gptq"), how);
    exported(work.file("out.gptq"), work.file("out"));
  };
  EXPECT_REFUSED(export_with("", ""), "does not say what its model is called in config.json");
  EXPECT_REFUSED(export_with("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 3"),
                 "does not give this model again");
  EXPECT_REFUSED(export_with("{", "["), "metadata: config");
  EXPECT_FALSE(fs::exists(work.file("out")));
}

// What rules of a quantization are matched with: parts of one module go by its name.
TEST(ExportFamily, ModulesHaveTheirNamesInCheckpoints) {
  const char* golden = std::getenv("GPTQ_GOLDEN");
  const TemporaryFolder work;
  const auto module_of = [&](const std::string& family, const model::SlotId& id) {
    const base::FileSource file(convert_folder(std::string(golden ? golden : "tests/golden") + "/families/" + family, work.file("m.gptq")));
    const format::Reader reader(file, std::pmr::get_default_resource());
    return read_published(reader.manifest()).locate(id).module;
  };
  using model::Role;
  for (const Role role : {Role::q, Role::k, Role::v})
    EXPECT_EQ(module_of("bloom-w4-g32", {.role = role, .layer = 1}), "transformer.h.1.self_attention.query_key_value");
  EXPECT_EQ(module_of("mixtral-w4-g32", {.role = Role::expert_down, .layer = 1, .expert = 3}),
            "model.layers.1.block_sparse_moe.experts.3.w2");
  EXPECT_EQ(module_of("glm4-moe-lite-w4-g32", {.role = Role::k_b, .layer = 0}), "model.layers.0.self_attn.kv_b_proj");
  EXPECT_EQ(module_of("qwen3-next-w4-g32", {.role = Role::z, .layer = 0}), "model.layers.0.linear_attn.in_proj_qkvz");
}

}  // namespace
}  // namespace gptq::test
