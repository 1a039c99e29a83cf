// SPDX-License-Identifier: Apache-2.0
// The rules of tokenizers on small vocabularies, and sections that lie.
#include <gtest/gtest.h>

#include <random>

#include "base/failure.h"
#include "converter/tokenizer/tiktoken.h"
#include "tests/unit/tokenizer_fixture.h"
#include "tests/seed.h"

namespace gptq::test {
namespace {

using text::fb::Alphabet;
using text::fb::Prefix;
using text::fb::Split;

TEST(TokenizerRules, MergesTheMostUrgentPairFirst) {
  const TestTokenizer t(small_description(Alphabet::bytes));
  EXPECT_EQ(t.encode(""), Ids{});
  EXPECT_EQ(t.encode("abcd"), (Ids{6, 3}));
  EXPECT_EQ(t.encode(" ab"), (Ids{4, 5}));
  EXPECT_EQ(t.encode(" ac"), (Ids{7, 2}));
}

TEST(TokenizerRules, AddedTokensSplitTheText) {
  const TestTokenizer t(small_description(Alphabet::bytes));
  EXPECT_EQ(t.encode("a##  b"), (Ids{0, 9, 1}));
  EXPECT_EQ(t.encode("a<s>b", {true, true}), (Ids{8, 0, 8, 1}));
  EXPECT_EQ(t.encode("a<s>b", {true, false}), (Ids{8, 5}));  // < s > have no token here: nothing stands between a and b
}

TEST(TokenizerRules, LongPiecesMergeAsShortOnesDo) {
  const TestTokenizer t(small_description(Alphabet::bytes));
  std::string text;
  Ids expected;
  for (int i = 0; i < 1000; ++i) {
    text += "abc ab ac";
    expected.insert(expected.end(), {6, 4, 5, 7, 2});
  }
  EXPECT_EQ(t.encode(text), expected);
}

TEST(TokenizerRules, PrefixesGoWhereTheyBelong) {
  auto d = small_description(Alphabet::characters);
  d.unknown = 8;
  d.prefix = Prefix::always;
  d.mark_spaces_first = true;
  EXPECT_EQ(TestTokenizer(d).encode("a##a"), (Ids{7, 9, 7}));
  EXPECT_EQ(TestTokenizer(d).encode("\xE2\x96\x81""a"), (Ids{4, 7}));
  d.mark_spaces_first = false;
  d.prefix = Prefix::unless_space;
  EXPECT_EQ(TestTokenizer(d).encode(" a##a"), (Ids{7, 9, 7}));
  d.prefix = Prefix::first_unless_space;
  EXPECT_EQ(TestTokenizer(d).encode("a##a"), (Ids{7, 9, 0}));
  EXPECT_EQ(TestTokenizer(d).encode("##a"), (Ids{9, 0}));
}

TEST(TokenizerRules, SpacesAreTrimmed) {
  auto d = small_description(Alphabet::characters);
  d.trim_spaces = d.mark_spaces_first = true;
  EXPECT_EQ(TestTokenizer(d).encode("  b   c  "), (Ids{1, 4, 2}));
}

TEST(TokenizerRules, UnknownTextFallsBack) {
  auto d = small_description(Alphabet::characters);
  d.unknown = 8;
  EXPECT_EQ(TestTokenizer(d).encode("axxb"), (Ids{0, 8, 8, 1}));
  d.fuse_unk = true;
  EXPECT_EQ(TestTokenizer(d).encode("ax\xC3\xA9""b"), (Ids{0, 8, 1}));
  d.byte_fallback = true;
  d.tokens.push_back({"\xC3", false, true});
  d.tokens.push_back({"\xA9", false, true});
  EXPECT_EQ(TestTokenizer(d).encode("a\xC3\xA9""b"), (Ids{0, 10, 11, 1}));
  EXPECT_EQ(TestTokenizer(d).encode("a\xFF""b"), (Ids{0, 8, 1}));  // U+FFFD, which has no bytes here
}

TEST(TokenizerRules, SplitsCompose) {
  auto d = small_description(Alphabet::bytes);
  d.tokens.push_back({"1", true});
  d.tokens.push_back({"11", true});
  d.merges.push_back({10, 10, 11});
  d.splits = {Split::gpt2};
  EXPECT_EQ(TestTokenizer(d).encode("a111"), (Ids{0, 11, 10}));
  d.splits = {Split::digits, Split::gpt2};
  EXPECT_EQ(TestTokenizer(d).encode("a11"), (Ids{0, 10, 10}));
  d.splits = {Split::digit_runs};
  EXPECT_EQ(TestTokenizer(d).encode("a11"), (Ids{0, 11}));
}

TEST(TokenizerRules, ModelsOfOtherSizesAreRefused) {
  const auto d = small_description(Alphabet::bytes);
  EXPECT_NO_THROW(TestTokenizer(d, 10));
  EXPECT_NO_THROW(TestTokenizer(d, 9));  // an added token too many: never given
  EXPECT_THROW(TestTokenizer(d, 8), base::Failure);
  EXPECT_EQ(TestTokenizer(d, 9).encode("##"), Ids{});
}

// Loads the section and uses it. True: it was taken.
bool survives(std::span<const uint8_t> blob) {
  try {
    const text::Tokenizer tokenizer(std::as_bytes(blob), 64, std::pmr::new_delete_resource());
    std::pmr::vector<int32_t> ids;
    for (const char* text : {"", "abcd ##  <s> e\xCC\x81 \xE2\x96\x81 12", "\xFF\xF0\x9F a\na"}) tokenizer.encode(text, {true, true}, ids);
    for (int32_t id = -1; id < 70; ++id) (void)tokenizer.token_bytes(id).size();
    for (const int32_t id : ids)
      if (id < 0 || id >= 64) ADD_FAILURE() << "token " << id << " of 64";
    return true;
  } catch (const base::Failure& failure) {
    EXPECT_TRUE(failure.detail.status == GPTQ_E_FORMAT || failure.detail.status == GPTQ_E_UNSUPPORTED);
    return false;
  }
}

std::vector<uint8_t> rich_blob() {
  auto d = small_description(Alphabet::characters);
  d.unknown = 8;
  d.nfc = d.trim_spaces = d.byte_fallback = true;
  d.prefix = Prefix::unless_space;
  d.splits = {Split::digits, Split::llama3};
  d.added[1].normalized = true;
  d.after = {9};
  d.splits.insert(d.splits.end(), {text::fb::Split::pattern, text::fb::Split::space_first, text::fb::Split::pattern});
  d.patterns = {{R"({"type": "Split", "pattern": {"Regex": "\\b[a-c]+(?!d)|\\W"}, "behavior": "MergedWithNext", "invert": true})"},
                {R"({"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Contiguous"})", text::fb::Sight::bytes}};
  d.pre_tokenizer = "{}";
  return convert::compile_tokenizer(d);
}

TEST(TokenizerSection, TruncatedOnesAreRefused) {
  const std::vector<uint8_t> blob = rich_blob();
  ASSERT_TRUE(survives(blob));
  for (size_t n = 0; n < blob.size(); ++n) {
    const std::vector<uint8_t> part(blob.begin(), blob.begin() + static_cast<ptrdiff_t>(n));
    survives(part);
  }
}

TEST(TokenizerSection, FlippedBitsDoNoHarm) {
  const std::vector<uint8_t> blob = rich_blob();
  int taken = 0;
  for (size_t bit = 0; bit < 8 * blob.size(); ++bit) {
    std::vector<uint8_t> bad = blob;
    bad[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
    taken += survives(bad);
  }
  EXPECT_LT(taken, static_cast<int>(8 * blob.size()));
}

TEST(TokenizerSection, OverwrittenFieldsDoNoHarm) {
  const std::vector<uint8_t> blob = rich_blob();
  std::mt19937 random(test::seed(7));
  for (int i = 0; i < 20'000; ++i) {
    std::vector<uint8_t> bad = blob;
    constexpr uint32_t edges[] = {0, 1, 2, 7, 8, 9, 10, 63, 64, 255, 256, 65535, 1u << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (unsigned n = random() % 3 + 1; n; --n) {
      const uint32_t value = edges[random() % std::size(edges)];
      std::memcpy(bad.data() + random() % (bad.size() / 4) * 4, &value, 4);
    }
    survives(bad);
  }
}

// a b c d, a space, ab, abc, and a space with an a, as tiktoken writes them.
TEST(TokenizerImport, Tiktoken) {
  const std::string file = "YQ== 0\nYg== 1\nYw== 2\nZA== 3\nIA== 4\nYWI= 5\nYWJj 6\nIGE= 7\n";
  EXPECT_TRUE(convert::is_tiktoken(file));
  EXPECT_FALSE(convert::is_tiktoken("\n\x0E\n\x05<unk>"));
  const convert::TokenizerDescription description = convert::from_tiktoken(file, "QWenTokenizer");
  EXPECT_EQ(description.merges.size(), 3u);
  const TestTokenizer tokenizer(description);
  EXPECT_EQ(tokenizer.encode("abc ab d"), (Ids{6, 4, 5, 4, 3}));
  EXPECT_EQ(tokenizer.encode("<|im_start|>a<|im_end|>", {false, true}), (Ids{9, 0, 10}));
  EXPECT_EQ(description.eos.id, 8);
}

// The same tokens behind three special ones; rank 8 is more than the vocabulary has.
TEST(TokenizerImport, Tekken) {
  const std::string config = R"({"config":{"pattern":"\\p{N}| ?\\p{L}+|\\s+","default_vocab_size":11,"default_num_special_tokens":3},"vocab":[)"
                             R"({"rank":0,"token_bytes":"YQ=="},{"rank":1,"token_bytes":"Yg=="},{"rank":2,"token_bytes":"Yw=="},)"
                             R"({"rank":3,"token_bytes":"ZA=="},{"rank":4,"token_bytes":"IA=="},{"rank":5,"token_bytes":"YWI="},)"
                             R"({"rank":6,"token_bytes":"YWJj"},{"rank":7,"token_bytes":"IGE="},{"rank":8,"token_bytes":"YWJjZA=="}])";
  const auto read = [](const std::string& text) { return convert::from_tekken(convert::JsonDocument("tekken.json", text + "}").root().fields()); };
  const TestTokenizer plain(read(config));
  EXPECT_EQ(plain.encode("abcd ab", {true}), (Ids{1, 9, 6, 7, 8}));
  EXPECT_EQ(plain.encode("abcd a", {}), (Ids{9, 6, 10}));
  EXPECT_EQ(plain.encode("<s>a</s>", {false, true}), (Ids{1, 3, 2}));
  const TestTokenizer listed(read(config + R"(,"special_tokens":[{"rank":1,"token_str":"<s>"},{"rank":2,"token_str":"[INST]"}])"));
  EXPECT_EQ(listed.encode("<SPECIAL_0>a[INST]", {true, true}), (Ids{1, 0, 3, 2}));
  for (const char* bad : {R"({"config":{}, "vocab":[])", R"({"vocab":[])", R"({"config":{"default_vocab_size":3,"default_num_special_tokens":3},"vocab":[])"})
    EXPECT_THROW(read(bad), base::Failure) << bad;
}

TEST(TokenizerImport, GgufPatternsByName) {
  const auto vocabulary = [](const char* pre) {
    convert::GgufVocabulary v;
    v.model = "gpt2";
    v.pre = pre;
    v.tokens = {"1", "2", "3", "4", "12", "123", "34", "a", "B"};
    v.merges = {"1 2", "3 4", "12 3"};
    return v;
  };
  EXPECT_EQ(TestTokenizer(convert::from_gguf_vocabulary(vocabulary("gpt-4o"))).encode("1234aB"), (Ids{5, 3, 7, 8}));
  EXPECT_EQ(TestTokenizer(convert::from_gguf_vocabulary(vocabulary("tekken"))).encode("1234aB"), (Ids{0, 1, 2, 3, 7, 8}));
  EXPECT_EQ(TestTokenizer(convert::from_gguf_vocabulary(vocabulary("falcon"))).encode("1234aB"), (Ids{5, 3, 7, 8}));
}

TEST(TokenizerImport, RefusesWhatItDoesNotKnowByName) {
  convert::GgufVocabulary v;
  v.tokens = {"a"};
  v.model = "gpt2";
  v.pre = "chameleon";
  try {
    convert::from_gguf_vocabulary(v);
    FAIL();
  } catch (const base::Failure& failure) {
    EXPECT_EQ(failure.detail.status, GPTQ_E_UNSUPPORTED);
    EXPECT_NE(std::string(failure.detail.message).find("chameleon"), std::string::npos);
  }
}

}  // namespace
}  // namespace gptq::test
