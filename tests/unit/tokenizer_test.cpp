// SPDX-License-Identifier: Apache-2.0
// Tokenizers of real models against the ids that their makers' tokenizer gives, and back to text.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "converter/json.h"
#include "tests/sanitized.h"
#include "tests/unit/tokenizer_fixture.h"

namespace gptq::test {
namespace {

namespace fs = std::filesystem;

std::string contents(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at; (at = text.find(separator, begin)) != std::string::npos; begin = at + separator.size()) parts.push_back(text.substr(begin, at - begin));
  parts.push_back(text.substr(begin));
  return parts;
}

class TokenizerData : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("GPTQ_TEST_DATA");
    if (!folder) GTEST_SKIP() << "GPTQ_TEST_DATA is not set: no tokenizers of real models";
    data = folder;
  }
  fs::path data;
};

struct Vectors {
  const char *name, *tokenizer;
};

TEST_F(TokenizerData, GivesTheIdsOfTheVectors) {
  for (const Vectors& v : {Vectors{"llama-bpe", "llama3_1"}, {"llama-spm", "llama2"}, {"qwen2", "qwen3"}, {"gpt-2", "gpt2"}, {"phi-3", "phi3-v"}, {"gemma-4", "gemma3"}}) {
    const TestTokenizer tokenizer(*convert::import_tokenizer(data / "tokenizers" / v.tokenizer));
    const fs::path file = data / "tokenizers/vectors" / (std::string("ggml-vocab-") + v.name + ".gguf");
    const auto texts = split(contents(file.string() + ".inp"), "\n__ggml_vocab_test__\n");
    const auto lines = split(contents(file.string() + ".out"), "\n");
    ASSERT_GE(lines.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      std::istringstream line(lines[i]);
      const Ids expected{std::istream_iterator<int32_t>(line), {}};
      EXPECT_EQ(tokenizer.encode(texts[i]), expected) << v.name << ": " << texts[i];
    }
  }
}

Ids ids_of(simdjson::dom::element list) {
  Ids ids;
  for (const int64_t id : simdjson::dom::array(list)) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

// A list of {"text", "ids"}, or an object of such under "tests".
void expect_json_ids(const TestTokenizer& tokenizer, const fs::path& file, text::EncodeOptions options) {
  simdjson::dom::parser parser;
  simdjson::dom::element root = parser.load(file.string());
  const auto check = [&](simdjson::dom::element test) {
    std::string_view text;
    if (test["text"].get(text)) return;  // null: ids only
    EXPECT_EQ(tokenizer.encode(text, options), ids_of(test["ids"])) << file << ": " << text;
  };
  if (root.is_array()) {
    for (const auto test : simdjson::dom::array(root)) check(test);
    return;
  }
  simdjson::dom::object tests = root["tests"];
  for (const auto test : tests) check(test.value);
}

TEST_F(TokenizerData, GivesTheIdsOfTheJsonVectors) {
  const fs::path vectors = data / "tokenizers/vectors-json", tokenizers = data / "tokenizers";
  const text::EncodeOptions special{false, true}, bos{true, true};
  expect_json_ids(TestTokenizer(*convert::import_tokenizer(tokenizers / "gpt2")), vectors / "gpt2__openai-community__gpt2.json", special);
  expect_json_ids(TestTokenizer(*convert::import_tokenizer(tokenizers / "llama2")), vectors / "llama__Xenova__llama-tokenizer.json", bos);
  expect_json_ids(TestTokenizer(*convert::import_tokenizer(tokenizers / "llama3_1")), vectors / "llama__Xenova__llama3-tokenizer.json", special);
  expect_json_ids(TestTokenizer(*convert::import_tokenizer(tokenizers / "qwen3")), vectors / "qwen2__Xenova__Qwen1.5-0.5B-Chat.json", special);
  expect_json_ids(TestTokenizer(*convert::import_tokenizer(data / "checkpoints/smollm2-135m-w4-g64")), vectors / "smollm2.json", special);
}

TEST_F(TokenizerData, GivesTheIdsOfTheCheckpoints) {
  int n = 0;
  for (const auto& entry : fs::directory_iterator(data / "checkpoints")) {
    if (!entry.is_directory()) continue;
    const auto description = convert::import_tokenizer(entry.path());
    if (!description) continue;
    expect_json_ids(TestTokenizer(*description), entry.path() / "reference.json", {true, true});
    ++n;
  }
  EXPECT_GE(n, 10);
}

// Folders behind public bug reports, of which transformers gave the ids.
TEST_F(TokenizerData, GivesTheIdsOfTheCases) {
  for (const char* name : {"added-tokens-json", "bos-flag-against-postprocessor", "pretok-deepseek-llm", "pretok-tekken", "vocab-merges-only"}) {
    const fs::path folder = data / "cases" / name;
    simdjson::dom::parser parser;
    const simdjson::dom::element expected = parser.load((folder / "case.json").string())["expected"];
    const TestTokenizer tokenizer(*convert::import_tokenizer(folder / "input"));
    const bool with_bos = std::string_view(name).starts_with("bos-flag");
    EXPECT_EQ(tokenizer.encode(std::string_view(expected["text"]), {with_bos, true}), ids_of(expected["ids"])) << name;
  }
}

TEST_F(TokenizerData, TextComesBack) {
  const std::string text = contents(data / "text/calibration/multilingual.utf8").substr(0, 100'000);
  for (const char* name : {"gpt2", "phi-2", "llama3_1", "llama2", "phi3-v", "gemma3"}) {
    const TestTokenizer tokenizer(*convert::import_tokenizer(data / "tokenizers" / name));
    std::string_view valid(text);
    while ((valid.back() & 0xC0) == 0x80) valid.remove_suffix(1);
    valid.remove_suffix(1);
    EXPECT_TRUE(tokenizer.decode(tokenizer.encode(valid)) == valid) << name;
  }
}

TEST_F(TokenizerData, LongRunsTakeLinearTime) {
#ifdef GPTQ_SANITIZED
  constexpr size_t bytes = 200'000;
#else
  constexpr size_t bytes = 1'000'000;
#endif
  for (const char* name : {"llama3_1", "llama2", "qwen3", "phi-2"}) {
    const TestTokenizer tokenizer(*convert::import_tokenizer(data / "tokenizers" / name));
    for (const char* unit : {"a", " ", "\n", "\xE3\x81\x82", "\xCC\x81", "ab", "<", "1"}) {
      std::string text;
      while (text.size() < bytes) text += unit;
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_FALSE(tokenizer.encode(text).empty());
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20)) << name << " " << unit;
    }
  }
}

TEST_F(TokenizerData, NamesItsSpecialTokens) {
  const auto description = convert::import_tokenizer(data / "tokenizers/llama3_1");
  EXPECT_EQ(description->bos.text, "<|begin_of_text|>");
  EXPECT_EQ(description->bos.id, 128000);
  EXPECT_EQ(description->eos.text, "<|eot_id|>");
  const TestTokenizer tokenizer(*description);
  EXPECT_EQ(tokenizer.get().attributes(128000), GPTQ_TOKEN_SPECIAL | GPTQ_TOKEN_ADDED);
  EXPECT_EQ(tokenizer.encode("<|eot_id|>", {true, true}), (Ids{128000, 128009}));
  const Ids plain = tokenizer.encode("<|eot_id|>");
  EXPECT_GT(plain.size(), 1u);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), 128009), 0);
}

// The same vocabulary by way of a GGUF file's keys.
TEST_F(TokenizerData, GgufVocabulariesGiveTheSameIds) {
  const std::string text = contents(data / "text/tinyshakespeare.txt").substr(0, 50'000);
  for (const bool bytes : {false, true}) {
    const auto description = convert::import_tokenizer(bytes ? data / "checkpoints/smollm2-135m-w4-g64" : data / "tokenizers/llama2");
    EXPECT_EQ(TestTokenizer(convert::from_gguf_vocabulary(gguf_of(*description))).encode(text), TestTokenizer(*description).encode(text));
  }
}

}  // namespace
}  // namespace gptq::test
