// SPDX-License-Identifier: Apache-2.0
// safetensors files and folders: one malformed file per rule.
#include "converter/safetensors/folder.h"
#include "converter_fixture.h"

namespace gptq::test {
namespace {

using namespace convert;

std::vector<TensorEntry> header_of(const std::string& file) {
  return read_safetensors_header(base::MemorySource(std::as_bytes(std::span(file))), "x.safetensors");
}

TEST(Safetensors, ReadsWhatItShould) {
  const auto entries = header_of(safetensors(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},)"
      R"("a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},)"
      R"("empty":{"dtype":"F32","shape":[0,7],"data_offsets":[16,16]}}   )",
      std::string(16, 'x')));
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(describe(entries[1]), "F16 [2, 3]");
  EXPECT_EQ(entries[1].bytes, 12u);
  EXPECT_EQ(entries[2].bytes, 0u);
}

TEST(Safetensors, RefusesEveryBrokenRule) {
  const auto one = [](std::string_view tensor, size_t bytes) {
    return safetensors("{\"t\":" + std::string(tensor) + "}", std::string(bytes, '\0'));
  };
  const struct {
    std::string file;
    const char* words;
  } cases[] = {
      {"", "too short"},
      {"1234567", "too short"},
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8), "are allowed"},
      {std::string("\x01\0\0\x01\0\0\0\0", 8), "are allowed"},
      {std::string("\x09\0\0\0\0\0\0\0{}", 10), "passes the end"},
      {safetensors("", ""), "no valid JSON"},
      {safetensors("[]", ""), "no valid JSON object"},
      {safetensors("{\"a\":1", ""), "no valid JSON"},
      {safetensors("{} {}", ""), "no valid JSON"},
      {safetensors(std::string(100, '[') + std::string(100, ']'), ""), "no valid JSON"},
      {safetensors(R"({"__metadata__":1})", ""), "__metadata__"},
      {safetensors(R"({"__metadata__":{"a":1}})", ""), "must be a string"},
      {one("1", 0), "must be an object"},
      {one(R"({"dtype":"F32","shape":[1]})", 4), "each once"},
      {one(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4), "each once"},
      {one(R"({"dtype":"F33","shape":[1],"data_offsets":[0,4]})", 4), "unknown dtype 'F33'"},
      {one(R"({"dtype":1,"shape":[1],"data_offsets":[0,4]})", 4), "no dtype"},
      {one(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})", 4), "no shape"},
      {one(R"({"dtype":"F32","shape":[1.0],"data_offsets":[0,4]})", 4), "whole numbers"},
      {one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), "whole numbers"},
      {one(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", 1), "8 dimensions"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", 4), "two numbers"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":["0",4]})", 4), "no whole numbers"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4), "ends before it begins"},
      {one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4), "make 8"},
      {one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})", 0), "2^64"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]})", 1), "overflow"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8), "hole"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 3), "not complete"},
      {one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", 5), "follow the last"},
      {safetensors(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", "xyz"),
       "overlaps"},
      {safetensors(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", "xy"),
       "twice"},
      {safetensors(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x"), "name of 0 bytes"},
      {safetensors("{\"" + std::string(513, 'n') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x"), "name of 513 bytes"},
  };
  for (const auto& c : cases) EXPECT_REFUSED(header_of(c.file), c.words);
}

TEST(Safetensors, TruncatedAtEveryLength) {
  const std::string whole = safetensors({{"a", tensor<float>("F32", {2}, {1, 2})}, {"b", tensor<uint16_t>("F16", {1}, {1})}});
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_REFUSED(header_of(whole.substr(0, n)), "x.safetensors");
}

std::string byte_tensor(const std::string& name) { return safetensors({{name, tensor<uint8_t>("U8", {1}, {7})}}); }

TEST(TensorFolder, FindsTheFile) {
  for (const char* name : {"model.safetensors", "gptq_model-4bit-128g.safetensors", "anything.safetensors"}) {
    const TemporaryFolder folder;
    folder.write(name, byte_tensor("t"));
    const TensorFolder tensors(folder.path());
    EXPECT_EQ(tensors.read(tensors.get("t")), std::vector<std::byte>{std::byte{7}});
    EXPECT_EQ(tensors.file_of(tensors.get("t")), name);
    EXPECT_EQ(tensors.find("u"), nullptr);
    EXPECT_REFUSED(tensors.get("u"), "no tensor 'u'");
  }
}

TEST(TensorFolder, RefusesFolders) {
  const TemporaryFolder empty, pickles, several;
  EXPECT_REFUSED(TensorFolder(empty.path()), "no .safetensors file");
  EXPECT_REFUSED(TensorFolder(empty.path() + "/nothing"), "cannot list");
  pickles.write("pytorch_model.bin", "x");
  EXPECT_REFUSED(TensorFolder(pickles.path()), "safe_serialization");
  several.write("a.safetensors", byte_tensor("a"));
  several.write("b.safetensors", byte_tensor("b"));
  EXPECT_REFUSED(TensorFolder(several.path()), "add the index");
}

std::string index_failure(const std::string& index) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", byte_tensor("a"));
  folder.write("two.safetensors", byte_tensor("b"));
  folder.write("again.safetensors", byte_tensor("a"));
  folder.write("model.safetensors.index.json", index);
  return failure_of([&] { TensorFolder tensors(folder.path()); });
}

TEST(TensorFolder, ChecksTheIndex) {
  const struct {
    const char *index, *words;
  } cases[] = {
      {"{", "no valid JSON"},
      {"{}", "weight_map"},
      {R"({"weight_map":[]})", "must be an object"},
      {R"({"weight_map":{"a":1}})", "must name a file"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "without any path"},
      {R"({"weight_map":{"a":"sub\\one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":".."}})", "without any path"},
      {R"({"weight_map":{"a":"one.bin"}})", "without any path"},
      {R"({"weight_map":{"a":"three.safetensors"}})", "cannot open"},
      {R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})", "not there"},
      {R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors"}})", "not there"},
      {R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", "twice"},
      {R"({"weight_map":{"a":"one.safetensors","b":"again.safetensors"}})", "and again in"},
  };
  for (const auto& c : cases) EXPECT_NE(index_failure(c.index).find(c.words), std::string::npos) << index_failure(c.index);
}

TEST(TensorFolder, ReadsShards) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", byte_tensor("a"));
  folder.write("two.safetensors", byte_tensor("b"));
  folder.write("model.safetensors.index.json", R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(tensors.file_of(tensors.get("b")), "two.safetensors");
  EXPECT_EQ(tensors.names().size(), 2u);
}

}  // namespace
}  // namespace gptq::test
