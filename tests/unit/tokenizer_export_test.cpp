// SPDX-License-Identifier: Apache-2.0
// Tokenizers taken out of the model file and written as tokenizer.json: read again, they give the same ids.
#include <cstdlib>
#include <fstream>

#include "converter/tokenizer/tokenizer_json.h"
#include "converter_fixture.h"
#include "tests/sanitized.h"
#include "tests/unit/tokenizer_fixture.h"

namespace gptq::test {
namespace {

using convert::TokenizerDescription;
using text::fb::Alphabet;
using text::fb::Prefix;
using text::fb::Split;

TokenizerDescription decompiled(const TokenizerDescription& description) {
  const std::vector<uint8_t> section = convert::compile_tokenizer(description);
  return convert::decompile_tokenizer(std::as_bytes(std::span(section)), 1u << 20);
}

TokenizerDescription written_and_read(const TokenizerDescription& description) {
  const std::string text = convert::write_tokenizer_json(decompiled(description));
  return convert::from_tokenizer_json(convert::JsonDocument("tokenizer.json", text).root().fields());
}

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void expect_same_ids(const TokenizerDescription& a, const TokenizerDescription& b, const std::vector<std::string>& texts) {
  const TestTokenizer first(a), second(b);
  for (const std::string& text : texts)
    for (const bool bos : {false, true})
      for (const bool special : {false, true})
        ASSERT_EQ(first.encode(text, {bos, special}), second.encode(text, {bos, special})) << text;
}

const std::vector<std::string> small_texts{"",
                                           " ",
                                           "  ",
                                           "a",
                                           " ab  abc ",
                                           "  a b",
                                           "dd<s>ab <s> a",
                                           "##  abc",
                                           "\xE2\x96\x81",
                                           "a\xE2\x96\x81",
                                           "\xE2\x96\x81 \xE2\x96\x81"
                                           "ab\xE2\x96\x81",
                                           "a 12 b 345",
                                           "ab\n  \nabc ",
                                           "x\xC3\xA9 z"};

TEST(TokenizerExport, TheSectionComesBackByteForByte) {
  for (const Alphabet alphabet : {Alphabet::bytes, Alphabet::characters})
    for (const bool ignore_merges : {false, true}) {
      TokenizerDescription t = small_description(alphabet);
      t.ignore_merges = ignore_merges;
      t.tokens.push_back({"dc", true});  // no merge makes it
      t.after = {8};
      EXPECT_EQ(convert::compile_tokenizer(decompiled(t)), convert::compile_tokenizer(t));
      EXPECT_EQ(decompiled(t).ignore_merges, ignore_merges);
    }
}

TEST(TokenizerExport, EveryStepOverCharacters) {
  for (const Prefix prefix : {Prefix::none, Prefix::always, Prefix::unless_space, Prefix::first_unless_space})
    for (const bool mark_first : {false, true})
      for (const bool trim : {false, true})
        for (const bool splits : {false, true}) {
          if (prefix == Prefix::always && !mark_first) continue;  // no file says so
          TokenizerDescription t = small_description(Alphabet::characters);
          t.prefix = prefix;
          t.mark_spaces_first = mark_first;
          t.trim_spaces = trim && mark_first;
          if (splits) t.splits = {Split::digits, Split::before_space};
          t.strips_leading_space = prefix != Prefix::none;
          t.byte_fallback = true;
          for (const unsigned char byte : {0x00, 0x0A, 0xC3, 0xA9})
            t.tokens.push_back({std::string(1, static_cast<char>(byte)), false, true});
          SCOPED_TRACE(testing::Message() << int(prefix) << mark_first << trim << splits);
          expect_same_ids(t, written_and_read(t), small_texts);
          EXPECT_EQ(written_and_read(t).strips_leading_space, t.strips_leading_space);
        }
}

TEST(TokenizerExport, EveryStepOverBytes) {
  const std::vector<std::vector<Split>> all{
      {}, {Split::gpt2}, {Split::digits, Split::gpt2}, {Split::llama3}, {Split::qwen2}, {Split::digit_runs, Split::llama3}};
  for (const auto& splits : all)
    for (const Prefix prefix : {Prefix::none, Prefix::unless_space}) {
      TokenizerDescription t = small_description(Alphabet::bytes);
      t.splits = splits;
      t.prefix = prefix;
      t.nfc = splits.size() == 1;
      if (prefix != Prefix::none && !splits.empty() && splits != all[1])
        EXPECT_REFUSED(convert::write_tokenizer_json(t), "splits them first");
      else expect_same_ids(t, written_and_read(t), small_texts);
    }
}

TEST(TokenizerExport, WhatTheFormatCannotSay) {
  TokenizerDescription t = small_description(Alphabet::characters);
  t.tokens.push_back({"ab", true});
  EXPECT_REFUSED(convert::write_tokenizer_json(t), "tokens 5 and 10 have the same text");
  t = small_description(Alphabet::bytes);
  t.tokens.push_back({"\xFF\xFE"});
  EXPECT_REFUSED(convert::write_tokenizer_json(t), "token 10 is no text");
  t = small_description(Alphabet::bytes);
  t.trim_spaces = true;
  EXPECT_REFUSED(convert::write_tokenizer_json(t), "over bytes");
}

// Added tokens behind a hole in the vocabulary keep their numbers.
TEST(TokenizerExport, HolesInTheVocabulary) {
  TokenizerDescription t = small_description(Alphabet::bytes);
  t.tokens.resize(14);
  t.tokens.push_back({"<end>", false, false, true});
  t.added.push_back({14, "<end>"});
  EXPECT_NE(convert::write_tokenizer_json(t).find("\"<end>\": 14"), std::string::npos);
  expect_same_ids(t, written_and_read(t), {"a<end>b", "<s><end>"});
}

TEST(TokenizerExport, RealTokenizers) {
  const char* data = std::getenv("GPTQ_TEST_DATA");
  if (!data) GTEST_SKIP() << "GPTQ_TEST_DATA is not set: no tokenizers of real models";
  const std::string root(data);
  const std::string mixed = text_of(root + "/text/calibration/multilingual.utf8").substr(0, 20'000);
  const std::vector<std::string> texts{mixed, text_of(root + "/text/wiki.test.raw").substr(0, 50'000),
                                       "<|im_start|>user\nHi  there<|im_end|>\n<s> [INST] x</s>\xE2\x96\x81 12345"};
#ifdef GPTQ_SANITIZED
  const std::vector<const char*> names{"gpt2", "phi-2", "llama2"};  // the small ones, of both kinds
#else
  const std::vector<const char*> names{"gpt2", "phi-2", "llama2", "phi3-v", "llama3_1", "qwen3", "gemma3"};
#endif
  for (const char* name : names) {
    SCOPED_TRACE(name);
    const auto description = convert::import_tokenizer(root + "/tokenizers/" + name);
    EXPECT_TRUE(convert::compile_tokenizer(decompiled(*description)) == convert::compile_tokenizer(*description));
    expect_same_ids(*description, written_and_read(*description), texts);
  }
}

}  // namespace
}  // namespace gptq::test
