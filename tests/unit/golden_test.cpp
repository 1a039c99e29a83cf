// SPDX-License-Identifier: Apache-2.0
// Files of every released format version, kept in tests/golden: they load as they did, and today's writer still
// writes the same chunks (the manifest's layout is flatbuffers' own affair).
#include <gtest/gtest.h>

#include <cstdlib>

#include "converter/inspect.h"
#include "converter/tokenizer/description.h"
#include "model/model.h"
#include "tests/unit/tiny_model.h"
#include "text/tokenizer.h"

namespace gptq::test {
namespace {

// Four letters, two merges and a special token over the tiny model's vocabulary of 20.
std::vector<uint8_t> tiny_tokenizer() {
  convert::TokenizerDescription d;
  for (const char* text : {"a", "b", "c", " ", "ab", "abc"}) d.tokens.push_back({.text = text, .symbol = true});
  d.tokens.push_back({.text = "<end>", .special = true});
  d.merges = {{0, 1, 4}, {4, 2, 5}};
  d.added.push_back({6, "<end>"});
  d.splits = {text::fb::Split::gpt2};
  d.eos = {6, "<end>"};
  return convert::compile_tokenizer(d);
}

Bytes tiny_file() {
  TinyModel tiny;
  tiny.tokenizer = tiny_tokenizer();
  return tiny.build(format::Compression::stored);
}

Bytes chunks_of(const Bytes& file) {
  format::Header header;
  std::memcpy(&header, file.data(), sizeof header);
  return {file.begin() + sizeof header, file.begin() + static_cast<ptrdiff_t>(header.manifest_offset)};
}

std::string golden(std::string_view name) {
  const char* folder = std::getenv("GPTQ_GOLDEN");
  return folder ? std::string(folder) + "/" + std::string(name) : std::string();
}

TEST(Golden, Version1_0) {
  const std::string path = golden("tiny-1.0.gptq");
  if (path.empty()) GTEST_SKIP() << "GPTQ_GOLDEN is not set; meson test sets it to tests/golden";
  const base::FileSource file(path);
  EXPECT_EQ(convert::verify(file).n_tensors, 15u);

  auto* memory = std::pmr::get_default_resource();
  base::Pool pool(1, nullptr, nullptr, memory);
  const model::Model model(file, {}, pool, memory);
  EXPECT_EQ(model.spec.n_ff, 40u);
  EXPECT_EQ(model.generation.end_tokens.size(), 2u);
  EXPECT_EQ(*model.find_meta("name"), "tiny");
  EXPECT_TRUE(model.layers[0][model::Role::q].w.perm && model.layers[0][model::Role::q].bias && model.layers[0][model::Role::v].w.zeros);

  const text::Tokenizer tokenizer(model.tokenizer.bytes(), model.spec.n_vocab, memory);
  std::pmr::vector<int32_t> ids(memory);
  tokenizer.encode("abc ab<end>", {.add_bos = false, .parse_special = true}, ids);
  EXPECT_EQ(ids, (std::pmr::vector<int32_t>{5, 3, 4, 6}));
}

TEST(Golden, WriterOfTheSameChunks) {
  const std::string path = golden("tiny-1.0.gptq");
  if (path.empty()) GTEST_SKIP() << "GPTQ_GOLDEN is not set; meson test sets it to tests/golden";
  const Bytes now = tiny_file();
  const bool same = chunks_of(now) == chunks_of(read_file(path));
  const std::string written = (std::filesystem::temp_directory_path() / "gptq-golden-now.gptq").string();
  if (!same) write_file(written, now);
  EXPECT_TRUE(same) << "what is written now was left in " << written;
}

}  // namespace
}  // namespace gptq::test
