// SPDX-License-Identifier: Apache-2.0
// inspect tells what is in a file; verify looks at all of it, also at what loading has no use for.
#include <gtest/gtest.h>

#include "base/failure.h"
#include "converter/inspect.h"
#include "converter/json.h"
#include "tests/unit/tiny_model.h"

namespace gptq::test {
namespace {

gptq_status verify(const Bytes& file) {
  try {
    convert::verify(base::MemorySource(file));
    return GPTQ_OK;
  } catch (const base::Failure& failure) {
    return failure.detail.status;
  }
}

TEST(Verify, SoundFile) {
  const Bytes file = TinyModel().build(format::Compression::zstd);
  const convert::Verified verified = convert::verify(base::MemorySource(file));
  EXPECT_EQ(verified.n_tensors, 15u);
  EXPECT_EQ(verified.bytes, file.size());
}

TEST(Verify, TensorWithoutAPlace) {
  TinyModel tiny;
  const auto rename = [&](fb::ManifestT&) { tiny.tensor("layers.0.q.bias").name = "layers.9.q.bias"; };
  EXPECT_EQ(verify(tiny.build(format::Compression::stored, rename)), GPTQ_E_FORMAT);
}

TEST(Verify, ChunkThatNothingRefersTo) {
  TinyModel tiny;
  Bytes file = tiny.build(format::Compression::stored, [&](fb::ManifestT& manifest) {
    std::erase_if(manifest.tensors, [](const auto& tensor) { return tensor->name == "layers.0.q.bias"; });
  });
  EXPECT_EQ(verify(file), GPTQ_OK);
  for (const fb::Chunk& chunk : tiny.manifest.chunks) {
    Bytes damaged = file;
    damaged[chunk.offset() + chunk.stored() - 1] ^= std::byte{4};
    EXPECT_EQ(verify(damaged), GPTQ_E_CHECKSUM) << chunk.offset();
  }
}

TEST(Verify, TokenizerThatIsNone) {
  TinyModel tiny;
  EXPECT_EQ(verify(tiny.build(format::Compression::stored, [](fb::ManifestT& manifest) {
    for (auto& tensor : manifest.tensors)
      if (tensor->name == "layers.0.q.bias") manifest.tokenizer = std::make_unique<fb::Part>(tensor->parts[0]);
    std::erase_if(manifest.tensors, [](const auto& tensor) { return tensor->name == "layers.0.q.bias"; });
  })), GPTQ_E_FORMAT);
}

TEST(Inspect, LinesAndJson) {
  TinyModel tiny;
  tiny.manifest.meta[0]->value = "a \"quoted\"\nname";
  const Bytes file = tiny.build();
  const base::MemorySource source(file);
  const std::string lines = convert::inspect(source, false);
  for (std::string_view text : {"n_vocab", "a \"quoted\" name", "weights q4 asymmetric reordered", "bits_per_weight"})
    EXPECT_NE(lines.find(text), lines.npos) << text << " is not in\n" << lines;

  const std::string json = convert::inspect(source, true);
  const convert::JsonDocument document("inspect", json);
  EXPECT_EQ(document.root().object("meta")->string("name"), "a \"quoted\"\nname");
  EXPECT_EQ(document.root().object("spec")->count("n_ff"), 40u);
  EXPECT_EQ(document.root().object("spec")->boolean("qk_norm"), true);
  EXPECT_EQ(document.root().object("weights")->count("tensors"), 15u);
  EXPECT_FLOAT_EQ(static_cast<float>(*document.root().object("generation")->number("temperature")), 0.7f);
}

}  // namespace
}  // namespace gptq::test
