// SPDX-License-Identifier: Apache-2.0
// Reference mode on a whole trained model, against checkpoints that ../shared/oracle's gptq64.py made of it with the same calibration
// rows: float64, column by column. A value at the middle between two codes may go either way; from there on its row differs, and a
// little the inputs of all later layers.
#include <cstdlib>

#include "converter/convert.h"
#include "converter_fixture.h"
#include "kernels/layout.h"
#include "quantize/quantize.h"
#include "text/tokenizer.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;
using quantize::ModuleOptions;
std::pmr::memory_resource* const memory = std::pmr::get_default_resource();

struct Case {
  const char* name;
  ModuleOptions options;
};

// The rows of oracle/make_checkpoints.py: 32 of 128 tokens, each BOS and the next 127 of the text's.
std::vector<int32_t> calibration_tokens(const format::Reader& reader, const std::string& text) {
  const base::Buffer section(memory, reader.manifest().tokenizer()->bytes());
  reader.read_part(*reader.manifest().tokenizer(), section.bytes(), memory);
  const text::Tokenizer tokenizer(section.bytes(), reader.manifest().spec()->n_vocab(), memory);
  std::pmr::vector<int32_t> ids;
  tokenizer.encode(text, {}, ids);
  std::vector<int32_t> tokens;
  for (size_t row = 0; row < 32; ++row)
    for (size_t i = 0; i < 128; ++i) tokens.push_back(i ? ids.at(row * 128 + i - 1) : tokenizer.bos());
  return tokens;
}

std::vector<std::byte> part_of(const format::Reader& reader, const format::fb::Tensor& tensor, format::fb::Role role) {
  std::vector<std::byte> bytes;
  for (const format::fb::Part* part : *tensor.parts())
    if (part->role() == role) {
      bytes.resize(part->bytes());
      reader.read_part(*part, bytes, memory);
    }
  return bytes;
}

// Bytes of codes, zeros and orders that differ, as a part of all.
struct Difference {
  std::string_view prefix;  // of the tensors that count
  uint64_t differing = 0, all = 0;
  double part() const { return static_cast<double>(differing) / static_cast<double>(all); }
  void add(const format::Reader& ours, const format::Reader& theirs) {
    for (const format::fb::Tensor* tensor : *theirs.manifest().tensors()) {
      if (!tensor->name()->string_view().starts_with(prefix) || !kernels::is_quantized(static_cast<kernels::Kind>(tensor->kind()))) continue;
      const format::fb::Tensor* other = ours.find(tensor->name()->string_view());
      ASSERT_NE(other, nullptr);
      ASSERT_EQ(other->kind(), tensor->kind()) << tensor->name()->string_view();
      for (const format::fb::Role role : {format::fb::Role::codes, format::fb::Role::zeros, format::fb::Role::perm}) {
        const auto a = part_of(ours, *other, role), b = part_of(theirs, *tensor, role);
        ASSERT_EQ(a.size(), b.size()) << tensor->name()->string_view();
        all += a.size();
        for (size_t i = 0; i < a.size(); ++i) differing += a[i] != b[i];
      }
    }
  }
};

TEST(QuantizeOracle, ReferenceModeOnAWholeModel) {
  const char* data = std::getenv("GPTQ_TEST_DATA");
  if (!data) GTEST_SKIP() << "GPTQ_TEST_DATA is not set";
  const fs::path checkpoints = fs::path(data) / "checkpoints";
  const TemporaryFolder folder;
  convert::convert(*convert::open_source((checkpoints / "stories-fp16").string(), {}), folder.file("source.gptq"), {});
  const base::FileSource source(folder.file("source.gptq"));
  std::ifstream text_file(fs::path(data) / "text/calibration/tiny.utf8", std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(text_file), {});
  // tokenizer.model, not the tokenizer.json of stories-fp16: that one keeps repeated spaces.
  convert::convert(*convert::open_source((checkpoints / "stories-w4-g32-static-actorder").string(), {}), folder.file("tokenizer.gptq"), {});
  const base::FileSource with_tokenizer(folder.file("tokenizer.gptq"));
  const std::vector<int32_t> tokens = calibration_tokens(format::Reader(with_tokenizer, memory), text.substr(0, 60000));
  const std::vector<uint32_t> rows(32, 128);
  base::Pool pool(2, nullptr, nullptr, memory);
  const kernels::Kernels kernels = kernels::select_kernels(0);
  using quantize::Order;
  for (const Case& c : {Case{"stories-w4-g64", {4, 64, true, false, Order::natural, 0.01}},
                        Case{"stories-w4-g32-static-actorder", {4, 32, true, true, Order::act_order, 0.01}},
                        Case{"stories-w4-g32-actorder-asym-v2-sharded", {4, 32, false, false, Order::act_order, 0.01}}}) {
    quantize::Options options;
    options.module = c.options;
    options.reference = true;
    const std::string ours = folder.file(std::string(c.name) + ".gptq"), theirs = folder.file("theirs.gptq");
    quantize::quantize(source, ours, {tokens, rows}, options, kernels, pool, memory);
    convert::ConvertOptions replace;
    replace.replace = true;
    convert::convert(*convert::open_source((checkpoints / c.name).string(), {}), theirs, replace);
    const base::FileSource our_file(ours), their_file(theirs);
    const format::Reader our_reader(our_file, memory), their_reader(their_file, memory);
    Difference first{"layers.0."}, all{"layers."};
    first.add(our_reader, their_reader);
    all.add(our_reader, their_reader);
    ASSERT_GT(first.all, 0u);
    EXPECT_LT(first.part(), 0.005) << c.name;
    EXPECT_LT(all.part(), 0.05) << c.name;
  }
}

}  // namespace
}  // namespace gptq::test
