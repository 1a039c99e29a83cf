// SPDX-License-Identifier: Apache-2.0
// The text of generated tokens: whole code points, stop strings held back, the first word's space.
#include "engine/text_stream.h"
#include "tests/api/fixture.h"
#include "tests/unit/tokenizer_fixture.h"
#include "text/utf8.h"

namespace gptq::test {
namespace {

using engine::TextStream;
const std::string replacement = "\xEF\xBF\xBD";

// Every string is a token; "<...>" are special.
convert::TokenizerDescription words(const std::vector<std::string>& texts) {
  convert::TokenizerDescription t;
  t.alphabet = text::fb::Alphabet::characters;
  for (const std::string& text : texts) t.tokens.push_back({text, false, false, text.starts_with('<')});
  t.strips_leading_space = true;
  return t;
}

struct Case {
  const char* name;
  std::vector<std::string> tokens, stops;
  std::vector<std::string> pieces;  // what is readable after each token, then after the end
  int stop = -1;                    // the index of the stop string that ends it
  bool keep_space = false, keep_stop = false;
};

const Case cases[] = {
    {.name = "words", .tokens = {"ab", "c"}, .pieces = {"ab", "c", ""}},
    {.name = "first_space_goes", .tokens = {" a", " b"}, .pieces = {"a", " b", ""}},
    {.name = "first_space_stays_if_wanted", .tokens = {" a", " b"}, .pieces = {" a", " b", ""}, .keep_space = true},
    {.name = "special_tokens_have_no_text", .tokens = {"<s>", "a", "</s>"}, .pieces = {"", "a", "", ""}},
    {.name = "code_point_of_two", .tokens = {"\xC3", "\xA9", "x"}, .pieces = {"", "\xC3\xA9", "x", ""}},
    {.name = "code_point_of_four", .tokens = {"a\xF0", "\x9F", "\x98", "\x80!"}, .pieces = {"a", "", "", "\xF0\x9F\x98\x80!", ""}},
    {.name = "never_completed", .tokens = {"a\xF0\x9F"}, .pieces = {"a", replacement}},
    {.name = "invalid_bytes", .tokens = {"\xFF", "\x80", "a"}, .pieces = {replacement, replacement, "a", ""}},
    {.name = "lead_then_ascii", .tokens = {"\xE2\x82", "a"}, .pieces = {"", replacement + "a", ""}},
    {.name = "surrogate", .tokens = {"\xED\xA0\x80"}, .pieces = {replacement + replacement + replacement, ""}},
    {.name = "stop_in_one_token", .tokens = {"hello", " STOP it"}, .stops = {"STOP"}, .pieces = {"hello", " "}, .stop = 0},
    {.name = "stop_kept", .tokens = {"hello", " STOP it"}, .stops = {"STOP"}, .pieces = {"hello", " STOP"}, .stop = 0, .keep_stop = true},
    {.name = "stop_across_tokens", .tokens = {"aS", "T", "O", "Pb"}, .stops = {"STOP"}, .pieces = {"a", "", "", ""}, .stop = 0},
    {.name = "held_back_then_released", .tokens = {"aST", "x"}, .stops = {"STOP"}, .pieces = {"a", "STx", ""}},
    {.name = "released_at_the_end", .tokens = {"aST"}, .stops = {"STOP"}, .pieces = {"a", "ST"}},
    {.name = "earliest_end_wins", .tokens = {"xbcd"}, .stops = {"bcd", "bc"}, .pieces = {"x"}, .stop = 1},
    {.name = "overlapping_itself", .tokens = {"aa", "ab"}, .stops = {"aab"}, .pieces = {"", "a"}, .stop = 0},
    {.name = "stop_of_half_a_code_point", .tokens = {"x\xC3", "\xA9"}, .stops = {"\xC3\xA9"}, .pieces = {"x", ""}, .stop = 0},
    {.name = "long_token",
     .tokens = {std::string(1000, 'a') + "END" + std::string(50, 'b')},
     .stops = {"END"},
     .pieces = {std::string(1000, 'a')},
     .stop = 0},
};

class Stream : public testing::TestWithParam<Case> {};

TEST_P(Stream, GivesPieces) {
  const Case& c = GetParam();
  const TestTokenizer tokenizer(words(c.tokens));
  TextStream stream;
  stream.start(&tokenizer.get(), c.keep_space, c.keep_stop);
  for (const std::string& stop : c.stops) ASSERT_TRUE(stream.add_stop(stop.data(), stop.size()));
  Tokens pushed;
  std::vector<std::string> pieces;
  const auto read = [&] {
    char buffer[2048];
    pieces.emplace_back(buffer, stream.read(pushed, buffer));
  };
  int found = -1;
  for (size_t i = 0; i < c.tokens.size() && found < 0; ++i) {
    pushed.push_back(static_cast<gptq_token>(i));
    found = stream.push(pushed);
    if (found < 0) read();
  }
  stream.finish();
  read();
  EXPECT_EQ(found, c.stop);
  EXPECT_EQ(pieces, c.pieces);
  EXPECT_EQ(stream.unread(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Cases, Stream, testing::ValuesIn(cases), [](const auto& info) { return std::string(info.param.name); });

TEST(Stream, LimitsOfStopStrings) {
  TextStream stream;
  stream.start(nullptr, false, false);
  const std::string longest(256, 'x');
  EXPECT_FALSE(stream.add_stop("", 0));
  EXPECT_FALSE(stream.add_stop((longest + "x").data(), 257));
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(stream.add_stop(longest.data(), longest.size()));
  EXPECT_FALSE(stream.add_stop("a", 1));
  EXPECT_EQ(stream.push(Tokens{0}), -1) << "without a tokenizer there is no text";
}

TEST(Stream, NeverSplitsWhateverTheBuffer) {
  const std::string whole = "z\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z";
  for (size_t cap = 4; cap < 12; ++cap) {
    std::vector<std::string> bytes;
    for (const char c : whole) bytes.emplace_back(1, c);
    const TestTokenizer tokenizer(words(bytes));
    TextStream stream;
    stream.start(&tokenizer.get(), false, false);
    Tokens pushed;
    std::string text;
    std::vector<char> buffer(cap);
    for (size_t i = 0; i < bytes.size(); ++i) {
      pushed.push_back(static_cast<gptq_token>(i));
      stream.push(pushed);
      if (i % 5 == 4 || i + 1 == bytes.size())
        while (const size_t n = stream.read(pushed, buffer)) {
          EXPECT_NE(static_cast<unsigned char>(buffer[0]) & 0xC0, 0x80);
          text.append(buffer.data(), n);
        }
    }
    EXPECT_EQ(text, whole);
  }
}

// Through the API: the pieces of a generation with a random model, which makes all kinds of bytes.
TEST(Stream, OfAGenerationIsItsTokens) {
  Chain c(text_model());
  for (uint32_t seed = 0; seed < 8; ++seed) {
    c.session.truncate(0);
    c.session.append(some_tokens(5, seed));
    auto sampling = make<gptq_sampling>();
    sampling.temperature = 3;
    sampling.seed = seed;
    auto how = generation(100);
    how.sampling = &sampling;
    c.session.start(how);
    std::string text;
    for (gptq_status status = GPTQ_MORE; status == GPTQ_MORE;) {
      status = c.engine.step(50);
      char small[5];
      for (size_t n = 1; n;) {
        check(gptq_session_read(c.session.get(), small, sizeof small, &n));
        text.append(small, n);
      }
    }
    // The same bytes with every maximal invalid part replaced: read in one go from another start.
    const Tokens tokens = c.session.read_tokens();
    const std::string bytes = c.model.detokenize(tokens);
    std::pmr::string expected;
    text::append_repaired(bytes, expected);
    EXPECT_EQ(text, std::string(expected));
    EXPECT_EQ(c.session.info().bytes_unread, 0u);
  }
}

}  // namespace
}  // namespace gptq::test
