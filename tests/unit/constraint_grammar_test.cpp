// SPDX-License-Identifier: Apache-2.0
// GBNF, a row a rule of the notation.
#include "tests/unit/constraint_rules.h"

namespace gptq::test {
namespace {

struct Row {
  const char* grammar;
  std::vector<const char*> accepted, refused;
};

const Row rows[] = {
    {"root ::= \"ab\" \"c\"", {"abc"}, {"", "ab", "abcd"}},
    {"root ::= \"a\" | \"b\" |", {"", "a", "b"}, {"ab"}},
    {"root ::= (\"a\" |\n \"b\")* \"c\"", {"c", "abac"}, {"ab"}},
    {"root ::= x+ y?\nx ::= \"a\"\ny ::= \"b\"", {"a", "aab"}, {"b", "abb"}},
    {"root ::= \"a\"{2} \"b\"{1,} \"c\"{0,2} \"d\"{,1}", {"aab", "aabbccd"}, {"ab", "aa", "aabccc", "aabdd"}},
    {"root ::= [a-c_\\-]+ [^x\\n]", {"a-_b!", "a\xc3\xa9"}, {"a", "ax", "a\n"}},
    {"root ::= . [\xc3\xa0-\xc3\xa9]", {"a\xc3\xa5", "\xf0\x9f\x98\x80\xc3\xa9"}, {"\xc3\xa5", "a\xc3\xaa"}},
    {"root ::= \"\\\"\\\\\\n\\t\\r\\x41\\u00e9\\U0001F600\"", {"\"\\\n\t\rA\xc3\xa9\xf0\x9f\x98\x80"}, {"A"}},
    {"# first\nroot ::= # here\n  \"a\" # and\n  # there\n\nx ::= \"b\"", {"a"}, {"b"}},
    {"root ::= x\r\nx-1 ::= \"b\"\r\nx ::= x-1 \"a\"", {"ba"}, {"a"}},
    // Nested as deeply as one likes, ambiguous ones, and those that end in themselves.
    {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((((((((((((((((((((()))))))))))))))))))))"}, {"(()", "())"}},
    {"root ::= s s s\ns ::= \"a\"*", {"", "aaaaaaa"}, {"b"}},
    {"root ::= \"a\" root | \"b\"", {"b", "aaaaaaaaaaaaaaab"}, {"a", "bb"}},
    {"root ::= e\ne ::= t (\"+\" t)*\nt ::= f (\"*\" f)*\nf ::= \"(\" e \")\" | [0-9]+",
     {"1", "1+2*(3+4)*5", "((7))"},
     {"1+", "(1", "1+*2", "()"}},
    {"root ::= a \"c\" | b \"d\"\na ::= \"x\" a | \"y\"\nb ::= \"x\" b | \"y\"", {"xxyc", "xxyd"}, {"xxy", "xxc"}},
};

TEST(ConstraintGrammar, EveryNotation) {
  for (const Row& row : rows) {
    SCOPED_TRACE(row.grammar);
    const Rules rules(Kind::grammar, row.grammar, bytes_alone());
    for (const char* text : row.accepted) EXPECT_TRUE(rules.accepts(text)) << text;
    for (const char* text : row.refused) EXPECT_FALSE(rules.accepts(text)) << text;
  }
}

TEST(ConstraintGrammar, RefusedWithThePlace) {
  const struct { const char* grammar; const char* message; uint64_t offset; } refused[] = {
      {"root ::= a", "no rule 'a'", 10},
      {"a ::= \"b\"", "no rule 'root'", 0},
      {"root := \"a\"", "::= is missing", 5},
      {"root ::= \"a\"\nroot ::= \"b\"", "a second rule 'root' at 13", 13},
      {"root ::= (\"a\"", "an open group", 13},
      {"root ::= \"a", "an open text or class", 11},
      {"root ::= [a", "an open text or class", 11},
      {"root ::= [b-a]", "runs backwards", 13},
      {"root ::= []", "holds nothing", 11},
      {"root ::= \"\\q\"", "unknown escape", 12},
      {"root ::= \"\\xg1\"", "hexadecimal digit", 13},
      {"root ::= \"a\"{3,2}", "{m,n}", 17},
      {"root ::= \"a\" )", "a line's end", 13},
      {"root ::= root \"a\" | \"b\"", "rule 'root' calls itself before any text, at 0", 0},
      {"root ::= \"a\" x\nx ::= (x \"b\")* \"c\"", "rule 'x' calls itself before any text, at 15", 15},
      {"root ::= <think> \"a\"", "a token as <think>", 9},
      {"root ::= (\"a\" | !<[9]>)*", "a token as <think>", 16},
      {"root ::= a | \"c\"\na ::= b? root \"x\"\nb ::= \"b\"", "calls itself", 0},
      {"root ::= \"a\" root", "rule 'root' can never end, at 0", 0},
      {"root ::= \"a\"{900000}", "too many repeats", 18},
  };
  for (const auto& [grammar, message, offset] : refused) {
    const Refusal r = refusal(Kind::grammar, grammar);
    EXPECT_NE(r.message.find(message), std::string::npos) << grammar << ": " << r.message;
    EXPECT_EQ(r.offset, offset) << grammar;
  }
}

}  // namespace
}  // namespace gptq::test
