// SPDX-License-Identifier: Apache-2.0
// Regular expressions against std::regex.
#include <regex>

#include "tests/seed.h"
#include "tests/unit/constraint_rules.h"

namespace gptq::test {
namespace {

bool matches(std::string_view pattern, std::string_view text) { return accepts(Kind::regex, pattern, text); }
uint64_t refused_at(std::string_view pattern) {
  const Refusal r = refusal(Kind::regex, pattern);
  EXPECT_NE(r.message, "") << pattern;
  return r.offset;
}

TEST(ConstraintRegex, AgreesWithTheStandardLibrary) {
  std::mt19937 random(seed(7));
  for (const char* pattern : {"a*b", "(a|b)*c{2,3}", "a{0}b?", "(?:ab|a)(b|c)+", "[^ab]c*", "(a*)*b", "(a?b){1,}", "a||b",
                              "[a-b]{2}|c", "\\w\\d?", "((a|b)(c|)){2}", "(a{2}|b{0,2})c", ".?b", "", "(a|b)*a(a|b){14}", "(a{3}){2}c?"}) {
    const Rules rules(Kind::regex, pattern, bytes_alone());
    const std::regex standard(pattern);
    for (int i = 0; i < 400; ++i) {
      std::string text;
      for (unsigned n = random() % (i % 2 ? 8 : 20); n; --n) text += i % 4 == 3 ? "ab"[random() % 2] : "abc1"[random() % 4];
      EXPECT_EQ(rules.accepts(text), std::regex_match(text, standard)) << pattern << " " << text;
    }
  }
}

TEST(ConstraintRegex, TakesWholeCharactersOfUtf8) {
  EXPECT_TRUE(matches("\xc3\xa9+", "\xc3\xa9\xc3\xa9"));
  EXPECT_FALSE(matches("\xc3\xa9+", "\xc3\xa9\xa9"));
  EXPECT_TRUE(matches("[^a].", "\xe2\x82\xac\xf0\x9f\x98\x80"));
  EXPECT_TRUE(matches("[\xc3\xa0-\xc3\xa9]", "\xc3\xa5"));
  EXPECT_FALSE(matches("[\xc3\xa0-\xc3\xa9]", "\xc3\xaa"));
  EXPECT_FALSE(matches(".", "\xed\xa0\x80"));  // a surrogate
  EXPECT_FALSE(matches(".", "\xc0\x80"));      // too long a form
}

TEST(ConstraintRegex, Escapes) {
  EXPECT_TRUE(matches("\\x41\\u0042\\u{1F600}\\t", "AB\xf0\x9f\x98\x80\t"));
  EXPECT_TRUE(matches("\\ud83d\\ude00", "\xf0\x9f\x98\x80"));
  EXPECT_TRUE(matches("\\p{L}+\\P{N}", "a\xc3\xa9!"));
  EXPECT_FALSE(matches("\\p{L}", "1"));
  EXPECT_TRUE(matches("(?<year>\\d{4})-\\S\\W", "1999-x "));
  EXPECT_TRUE(matches("^a$|^b", "b"));
  EXPECT_FALSE(matches("a^b", "ab"));
}

// Those of ECMA-262, in schemas' patterns too.
TEST(ConstraintRegex, WhiteSpace) {
  for (const char* space : {"\t", "\n", "\v", "\f", "\r", " ", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x8a", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf",
                            "\xe2\x81\x9f", "\xe3\x80\x80", "\xef\xbb\xbf"}) {
    EXPECT_TRUE(matches("\\s", space)) << space;
    EXPECT_TRUE(matches("[a\\s]", space)) << space;
    EXPECT_FALSE(matches("\\S", space)) << space;
    if (const std::string text = std::string("\"") + space + "\""; static_cast<unsigned char>(*space) >= ' ') {
      EXPECT_TRUE(accepts(Kind::json_schema, R"({"pattern": "^\\s$"})", text)) << space;
    }
  }
  for (const char* other : {"\xc2\x85", "\xe1\xa0\x8e", "\xe2\x80\x8b", "a", "\xe2\x81\xa0"}) EXPECT_FALSE(matches("\\s", other)) << other;
  EXPECT_FALSE(matches("\\w|\\d", "\xc3\xa9"));
  EXPECT_FALSE(matches("\\d", "\xd9\xa1"));
}

TEST(ConstraintRegex, RefusesWithThePlace) {
  EXPECT_EQ(refused_at("ab)"), 2u);
  EXPECT_EQ(refused_at("(ab"), 3u);
  EXPECT_EQ(refused_at("a**"), 2u);
  EXPECT_EQ(refused_at("a\\q"), 2u);
  EXPECT_EQ(refused_at("(?=a)"), 2u);
  EXPECT_EQ(refused_at("[^\\d\\D]"), 7u);
  EXPECT_EQ(refused_at("[b-a]"), 4u);
  EXPECT_EQ(refused_at("a{,3}"), 1u);
  EXPECT_TRUE(matches("a{,b}", "a{,b}"));
  EXPECT_EQ(refused_at("a\xff"), 1u);
  refused_at(std::string(60000, '('));
  refused_at("((a{99}){99}){99}{99}");
  refused_at("a{300000}");
  refused_at("(a{500}b?){500}(c{500}|d{1000000})");
}

struct RegexRow {
  const char* pattern;
  uint64_t offset;
  const char* words;
};

const RegexRow regex_rows[] = {
    {"a{3,2}", 6, "a wrong {m,n}"},
    {"a{3,", 4, "a number missing"},
    {"a{3", 3, "a wrong {m,n}"},
    {"a+{2}", 2, "a repeat of a repeat"},
    {"a*?+", 3, "a repeat of a repeat"},
    {"^*", 2, "a repeated ^ or $"},
    {"a${2}", 5, "a repeated ^ or $"},
    {"\\x4", 3, "a hexadecimal digit missing"},
    {"\\u00g0", 5, "a hexadecimal digit missing"},
    {"\\u{110000}", 9, "no code point"},
    {"\\ud83d\\u0041", 12, "half a surrogate pair"},
    {"\\pL", 2, "an open \\p"},
    {"\\p{L", 3, "an open \\p"},
    {"\\p{Lu}", 3, "a property other than L and N"},
    {"a\\", 2, "a lone backslash"},
    {"\\1", 1, "an unknown escape"},
    {"[a", 2, "an open class"},
    {"[]", 1, "an empty class"},
    {"[^]", 2, "an empty class"},
    {"[a-\\d]", 5, "a range between classes"},
    {"[\\d-z]", 5, "a range between classes"},
};

TEST(ConstraintRegex, RefusalsSayWhatIsWrong) {
  for (const RegexRow& row : regex_rows) {
    const Refusal r = refusal(Kind::regex, row.pattern);
    EXPECT_EQ(r.offset, row.offset) << row.pattern << ": " << r.message;
    EXPECT_NE(r.message.find(row.words), std::string::npos) << row.pattern << ": " << r.message;
  }
}

// What a table of all states could not hold is found as the text comes.
TEST(ConstraintRegex, ManyStatesAreNoReasonToRefuse) {
  const Rules rules(Kind::regex, "((a{99}){99}){99}", bytes_alone());
  EXPECT_FALSE(rules.accepts(std::string(9801, 'a')));
  EXPECT_TRUE(matches("(a{99}){99}", std::string(9801, 'a')));
  EXPECT_FALSE(matches("(a{99}){99}", std::string(9802, 'a')));
}

}  // namespace
}  // namespace gptq::test
