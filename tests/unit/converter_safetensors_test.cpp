// SPDX-License-Identifier: Apache-2.0
// safetensors files and folders: one malformed file per rule.
#include "converter/safetensors/folder.h"
#include "model/spec.h"
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
  EXPECT_EQ(header_of(safetensors(R"({"__metadata__":{"a":null},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")).size(), 1u);
  EXPECT_EQ(header_of(safetensors(R"({"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")).size(), 1u);
}

TEST(Safetensors, SaysWhatElseItIs) {
  const std::string rest(400, 'x');
  EXPECT_REFUSED(header_of("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n"),
                 "is a git-lfs pointer, not the file itself");
  EXPECT_REFUSED(header_of("<!DOCTYPE html><html>" + rest), "a web page");
  EXPECT_REFUSED(header_of("PK\3\4" + rest), "zip archive");
  EXPECT_REFUSED(header_of("GGUF\3" + rest), "a GGUF file");
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

TEST(TensorFolder, GivesUpWhatALayerHasRead) {
  const TemporaryFolder folder;
  const auto entry = [](std::string_view name, int at) {
    return "\"" + std::string(name) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(at) + "," + std::to_string(at + 1) + "]}";
  };
  const std::string header = "{" + entry("embed", 0) + "," + entry("h.0.q", 1) + "," + entry("h.1.q", 2) + "," + entry("h.0.v", 3) + "}";
  folder.write("model.safetensors", safetensors(header, "abcd"));
  std::string gone;
  FolderOptions options;
  options.done_with = [&](std::string_view file, uint64_t offset, uint64_t bytes) {
    EXPECT_EQ(file, "model.safetensors");
    EXPECT_EQ(bytes, 1u);
    gone += std::to_string(offset - 8 - header.size());
  };
  TensorFolder tensors(folder.path(), options);
  for (const char* name : {"embed", "h.0.q", "h.1.q"}) tensors.read(tensors.get(name));
  tensors.finish_layer(0);
  EXPECT_EQ(gone, "1");  // not what belongs elsewhere, nor what was not read
  EXPECT_REFUSED(tensors.read(tensors.get("h.0.q")), "was given up");
  for (const char* name : {"embed", "h.1.q", "h.0.v"}) tensors.read(tensors.get(name));
  tensors.finish_layer(model::no_index);
  EXPECT_EQ(gone, "10");
  TensorFolder others(folder.path());  // nobody wants to know
  others.read(others.get("h.0.q"));
  others.finish_layer(0);
  EXPECT_EQ(others.read(others.get("h.0.q")).size(), 1u);
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

// What happens to a folder with one.safetensors (a), two.safetensors (b), again.safetensors (a) and this index: a failure, or warnings.
std::string outcome_of_index(const std::string& index) {
  const TemporaryFolder folder;
  folder.write("one.safetensors", byte_tensor("a"));
  folder.write("two.safetensors", byte_tensor("b"));
  folder.write("again.safetensors", byte_tensor("a"));
  folder.write("model.safetensors.index.json", index);
  std::string warnings;
  try {
    TensorFolder tensors(folder.path(), {.warn = [&](std::string_view text) { warnings += std::string(text) + "\n"; }});
  } catch (const base::Failure& failure) {
    return "refused: " + std::string(failure.detail.message);
  }
  return warnings;
}

TEST(TensorFolder, ChecksTheIndex) {
  const struct {
    const char *index, *words;
  } cases[] = {
      {"{", "no valid JSON"},
      {"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"},
      {"{}", "weight_map"},
      {R"({"weight_map":{}})", "names no file"},
      {R"({"weight_map":[]})", "must be an object"},
      {R"({"weight_map":{"a":1}})", "must name a file"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "without any path"},
      {R"({"weight_map":{"a":"sub\\one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":".."}})", "without any path"},
      {R"({"weight_map":{"a":"sub/../../one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":"./one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":"sub//one.safetensors"}})", "without any path"},
      {R"({"weight_map":{"a":"sub/one.safetensors"}})", "'sub/one.safetensors', which is not there"},
      {R"({"weight_map":{"a":"one.bin"}})", "without any path"},
      {R"({"weight_map":{"a":"three.safetensors"}})", "'three.safetensors', which is not there"},
      {R"({"weight_map":{"a":"one.safetensors","c":"three.safetensors"}})", "which is not there: the download is not complete"},
      {R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", "twice"},
      {R"({"weight_map":{"x":"one.safetensors","y":"again.safetensors"}})", "and again in"},
  };
  for (const auto& c : cases) {
    const std::string outcome = outcome_of_index(c.index);
    EXPECT_TRUE(outcome.starts_with("refused: ")) << c.index;
    EXPECT_NE(outcome.find(c.words), std::string::npos) << outcome;
  }
}

TEST(TensorFolder, ReadsWithAStaleIndex) {
  EXPECT_EQ(outcome_of_index(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"), "");
  EXPECT_EQ(outcome_of_index(R"({"weight_map":{"a":"one.safetensors"}})"), "");
  EXPECT_NE(outcome_of_index(R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})")
                .find("1 tensor is not in the file it says, such as 'c'"),
            std::string::npos);
  EXPECT_NE(outcome_of_index(R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors"}})").find("2 tensors are"), std::string::npos);
  // Where two files have the same tensor, the index decides.
  EXPECT_EQ(outcome_of_index(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})"), "");
  EXPECT_NE(outcome_of_index(R"({"weight_map":{"a":"again.safetensors","b":"one.safetensors"}})").find("such as 'b'"), std::string::npos);
}

// Files of one tensor each, whose value is the file's place in the list; index: "" = none.
struct Choice {
  const char* what;
  std::vector<std::string> files;
  std::string index, name;
  std::vector<std::string> expected;
  const char* words;  // of the warning, or of the failure where nothing is expected
};

TEST(TensorFolder, ChoosesTheFiles) {
  const std::string shard = "model-00001-of-00002.safetensors", other = "model-00002-of-00002.safetensors", whole = "model.safetensors";
  const auto map = [](const std::vector<std::string>& files) {
    std::string text;
    for (const std::string& file : files) text += (text.empty() ? "" : ",") + ("\"" + file + "\":\"" + file + "\"");
    return "{\"weight_map\":{" + text + "}}";
  };
  const Choice choices[] = {
      {"shards by their index", {shard, other}, map({shard, other}), "", {shard, other}, ""},
      {"the whole file, not an index of other files", {shard, other, whole}, map({shard, other}), "", {whole}, "does not name"},
      {"the whole file, the index's shards are gone", {whole}, map({shard, other}), "", {whole}, "does not name"},
      {"an index of the whole file", {whole}, map({whole}), "", {whole}, ""},
      {"an index of the whole file and another", {whole, "more.safetensors"}, map({whole, "more.safetensors"}), "",
       {whole, "more.safetensors"}, ""},
      {"a broken index beside the whole file", {whole}, "{", "", {whole}, "does not name"},
      {"an index that leaves out a shard", {shard, other}, map({shard}), "", {shard, other}, "leaves out"},
      {"an index of shards that are gone, and one other file", {"gptq_model-4bit-128g.safetensors"}, map({shard, other}), "",
       {"gptq_model-4bit-128g.safetensors"}, "which is not there"},
      {"half a download", {shard}, map({shard, other}), "", {}, "the download is not complete"},
      {"half a download without an index", {other}, "", "", {}, "shard 1 of 2"},
      {"shards without an index", {shard, other}, "", "", {shard, other}, ""},
      {"shards with a broken index", {shard, other}, "[]", "", {shard, other}, "is read instead, without an index"},
      {"two of three shards", {"model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"}, "", "", {}, "shard 2 of 3"},
      {"shards of another name", {"m-1-of-2.safetensors", "m-2-of-2.safetensors"}, "", "",
       {"m-1-of-2.safetensors", "m-2-of-2.safetensors"}, ""},
      {"shards of two models", {"m-1-of-2.safetensors", "n-2-of-2.safetensors"}, "", "", {}, "add the index"},
      {"the config's name", {"net.safetensors", whole}, "", "net", {"net.safetensors"}, "'model.safetensors' is left out"},
      {"the config's name before an index", {"net.safetensors", shard, other}, map({shard, other}), "net", {"net.safetensors"},
       "'model.safetensors.index.json' is left out"},
      {"the config's name, as shards", {"net-1-of-2.safetensors", "net-2-of-2.safetensors", whole}, "", "net",
       {"net-1-of-2.safetensors", "net-2-of-2.safetensors"}, "is left out"},
      {"the config's name is not there", {whole}, "", "net", {whole}, ""},
      {"the config's name among others", {"a.safetensors", "b.safetensors"}, "", "b", {"b.safetensors"}, ""},
      {"nobody says which", {"a.safetensors", "b.safetensors"}, "", "c", {}, "add the index"},
      {"an adapter beside the model", {"adapter_model.safetensors", "net.safetensors"}, "", "", {"net.safetensors"}, ""},
      {"an adapter alone", {"adapter_model.safetensors"}, "", "", {}, "has only an adapter"},
      {"Mistral's consolidated file", {"consolidated.safetensors", "net.safetensors"}, "", "", {"net.safetensors"}, ""},
      {"the consolidated file alone", {"consolidated.safetensors"}, "", "", {"consolidated.safetensors"}, ""},
  };
  for (const Choice& c : choices) {
    SCOPED_TRACE(c.what);
    const TemporaryFolder folder;
    for (const std::string& file : c.files) folder.write(file, byte_tensor(file));
    if (!c.index.empty()) folder.write("model.safetensors.index.json", c.index);
    std::string said;
    FolderOptions options;
    if (!c.name.empty()) options.names = {c.name};
    options.warn = [&](std::string_view text) { said += text; };
    std::vector<std::string> read;
    try {
      const TensorFolder tensors(folder.path(), options);
      for (const std::string_view name : tensors.names()) read.emplace_back(name);
    } catch (const base::Failure& failure) {
      said = failure.detail.message;
    }
    EXPECT_EQ(read, c.expected) << said;
    EXPECT_EQ(said.empty(), *c.words == 0) << said;
    EXPECT_NE(said.find(c.words), std::string::npos) << said;
  }
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

TEST(TensorFolder, ReadsShardsOfFoldersInside) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.file("w/x"));
  folder.write("w/x/a.safetensors", byte_tensor("a"));
  folder.write("b.safetensors", byte_tensor("b"));
  folder.write("model.safetensors.index.json", R"({"weight_map":{"a":"w/x/a.safetensors","b":"b.safetensors"}})");
  const TensorFolder tensors(folder.path());
  EXPECT_EQ(tensors.file_of(tensors.get("a")), "w/x/a.safetensors");
  EXPECT_EQ(tensors.names().size(), 2u);
}

}  // namespace
}  // namespace gptq::test
