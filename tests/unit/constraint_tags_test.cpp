// SPDX-License-Identifier: Apache-2.0
// Tags in free text: which texts hold, where bad sources are refused, and what special tokens may.
#include <regex>

#include "tests/unit/constraint_rules.h"

namespace gptq::test {
namespace {

const char* const two_tools = R"j({"tags": [
  {"begin": "<tool>{\"name\": \"go\", \"to\": ", "choice": ["\"north\"", "\"south\""], "end": "}</tool>"},
  {"begin": "<tool>{\"name\": \"hit\", \"with\": ", "json_schema": {"type": "integer", "maximum": 9}, "end": "}</tool>"}],
  "triggers": ["<tool>"]})j";
const char* const plain = R"j({"tags": [{"begin": "<a>", "regex": "[0-9]+", "end": "</a>"}, {"begin": "<b>", "grammar": "root ::= \"x\" root | \"y\""}]})j";
const char* const greedy_rules = R"j({"tags": [{"begin": "[", "regex": "[ab\\]]*", "end": "]]"}, {"begin": "{", "regex": "(ab)*", "end": "aab"}]})j";
const char* const once = R"j({"tags": [{"begin": "<a>", "choice": ["1"], "end": "</a>"}], "at_least_one": true, "stop_after_first": true})j";

struct Row {
  const char* source;
  const char* text;
  bool accepted;
};
const Row rows[] = {
    {two_tools, "", true},
    {two_tools, "no <tool in here, nor <too<tool", true},
    {two_tools, "I go. <tool>{\"name\": \"go\", \"to\": \"north\"}</tool> Then <tool>{\"name\": \"hit\", \"with\": -12}</tool>", true},
    {two_tools, "<tool>{\"name\": \"go\", \"to\": \"north\"}</tool", false},
    {two_tools, "<tool>{\"name\": \"go\", \"to\": \"west\"}</tool>", false},
    {two_tools, "<tool>{\"name\": \"hit\", \"with\": 10}</tool>", false},
    {two_tools, "<tool> is a word", false},
    {two_tools, "<<tool>{\"name\": \"hit\", \"with\": 9}</tool>", true},
    {two_tools, "<to<tool>x", false},
    {plain, "<a>12</a><a>3</a>x<b>xxy", true},
    {plain, "<b>xxy ", false},
    {plain, "<b>xx", false},
    {plain, "<a></a>", false},
    {plain, "\xff\xc3 < a > <a", true},
    {greedy_rules, "[ab]]c[]]", true},   // the first end counts
    {greedy_rules, "[ab]]]", true},      // what follows it is free
    {greedy_rules, "[ab", false},
    {greedy_rules, "[abc", false},
    {greedy_rules, "{abaab ", true},     // rules and end begin alike
    {greedy_rules, "{aab{abababaab", true},
    {greedy_rules, "{ab", false},
    {once, "", false},
    {once, "well <a>1</a>", true},
    {once, "well <a>1</a>!", false},
};

TEST(ConstraintTags, WhatHolds) {
  for (const Row& row : rows) EXPECT_EQ(accepts(Kind::tags, row.source, row.text), row.accepted) << row.source << ": " << row.text;
}

TEST(ConstraintTags, TheEndIsKnown) {
  const Rules rules(Kind::tags, once, bytes_alone());
  EXPECT_TRUE(rules.constraint.complete(rules.after("<a>1</a>")));
  EXPECT_FALSE(rules.constraint.complete(rules.after("<a>1</a")));
  const Rules open(Kind::tags, plain, bytes_alone());
  EXPECT_FALSE(open.constraint.complete(open.after("<a>1</a>")));
  EXPECT_TRUE(open.constraint.complete(open.after("<b>y")));
}

// Schemas are documents of their own, whatever else is in the source.
TEST(ConstraintTags, SchemasKeepTheirReferences) {
  const char* const source = R"j({"tags": [
    {"begin": "<a>", "json_schema": {"$ref": "#/$defs/x", "$defs": {"x": {"const": 1}}}, "end": "."},
    {"begin": "<b>", "json_schema": {"$ref": "#/$defs/x", "$defs": {"x": {"const": 2}}}, "end": "."},
    {"begin": "<c>", "json_schema": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string", "format": "date"}, "end": "."},
    {"begin": "<d>", "json_schema": {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "string", "format": "date"}, "end": "."},
    {"begin": "<e>", "json_schema": true, "end": "."},
    {"begin": "<f>", "json_compact": true, "end": "."}]})j";
  const Rules rules(Kind::tags, source, bytes_alone());
  EXPECT_TRUE(rules.accepts("<a>1.<b>2.<c>\"2024-02-29\".<d>\"x\".<e>{\"any\": [1.5]}.<f>{\"any\":[1.5]}.<a>1."));
  const Rules several(Kind::tags, R"j({"tags": [{"begin": "<a>", "json_schema": {"type": "array", "maxItems": 0}}, {"begin": "<b>", "json_schema": {"type": "string"}, "end": "."}]})j", bytes_alone());
  EXPECT_TRUE(several.accepts("<b>\"x\".<b>\"\".<a>[]"));
  for (const char* text : {"<a>2.", "<b>1.", "<c>\"x\".", "<d>1.", "<e>x.", "<f>{\"any\": [1.5]}."}) EXPECT_FALSE(rules.accepts(text)) << text;
}

struct Bad {
  const char* source;
  uint64_t offset;
  const char* message;
};
const Bad bad_sources[] = {
    {"[]", 0, "an object is wanted"},
    {R"({"tags": [], "at_least_one": true})", 0, "/tags: an array"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}], "many": 1})", 0, "/many: an unknown key"},
    {R"({"tags": [{"begin": "<a>", "regex": "a", "ends": "b"}]})", 0, "/tags/0/ends: an unknown key"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}], "at_least_one": 1})", 0, "/at_least_one: true or false"},
    {R"({"tags": [{"begin": "", "regex": "a"}]})", 0, "/tags/0/begin: a text of 1"},
    {R"({"tags": [{"begin": "<a>", "end": "", "regex": "a"}]})", 0, "/tags/0/end: a text of 1"},
    {R"({"tags": [{"begin": "<a>"}]})", 0, "/tags/0: one of json_schema"},
    {R"({"tags": [{"begin": "<a>", "regex": "a", "choice": ["b"]}]})", 0, "/tags/0: one of json_schema"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}, {"begin": "<b>", "regex": "b(c"}]})", 3, "/tags/1/regex: regex: an open group"},
    {R"({"tags": [{"begin": "<a>", "grammar": "root ::= b"}]})", 10, "/tags/0/grammar: grammar: there is no rule 'b'"},
    {R"({"tags": [{"begin": "<a>", "grammar": "root ::= root"}]})", 0, "/tags/0/grammar: grammar: rule 'root' can never end"},
    {R"({"tags": [{"begin": "<a>", "choice": ["b", 1]}]})", 0, "/tags/0/choice/1: a string"},
    {R"({"tags": [{"begin": "<a>", "choice": []}]})", 0, "/tags/0/choice: there is nothing"},
    {R"({"tags": [{"begin": "<a>", "json_schema": {"properties": {"x": {"$ref": "http://y/z"}}}}]})", 0, "/tags/0/json_schema/properties/x/$ref"},
    {R"({"tags": [{"begin": "<a>", "json_schema": 1}]})", 0, "/tags/0/json_schema: a schema is"},
    {R"({"tags": [{"begin": "<a>", "json_schema": true}, {"begin": "<b>", "json_schema": false}]})", 0, "schema: /tags/1/json_schema: it is false, so no text is allowed"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}, {"begin": "<a>", "regex": "b"}]})", 0, "/tags/0/begin: '<a>' has the trigger"},
    {R"({"tags": [{"begin": "<a", "regex": "a"}, {"begin": "<a>", "regex": "b"}], "triggers": ["<"]})", 0, "/tags/1/begin: it starts with all"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}], "triggers": ["<", "b"]})", 0, "/triggers/1: no tag begins"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}], "triggers": ["b"]})", 0, "/tags/0/begin: no trigger"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}], "triggers": []})", 0, "/triggers: an array"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"}, {"begin": "b<a", "regex": "a"}], "triggers": ["<a", "b<a"]})", 0, "/triggers/1: 'b<a' has the trigger '<a'"},
    {R"({"tags": [{"begin": "<a>", "regex": "a"})", 40, "no valid JSON at byte 40"},
};

TEST(ConstraintTags, BadSourcesAreRefusedAtTheirPlace) {
  for (const Bad& bad : bad_sources) {
    const Refusal r = refusal(Kind::tags, bad.source);
    EXPECT_NE(r.message.find(bad.message), std::string::npos) << bad.source << ": " << r.message;
    EXPECT_EQ(r.offset, bad.offset) << bad.source;
  }
}

// Special tokens as the tokenizer would give them: anywhere in free text, as begins and ends, nowhere in between.
TEST(ConstraintTags, SpecialTokensByTheirText) {
  std::vector<std::string_view> pieces;
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  for (const std::string& byte : bytes) pieces.push_back(byte);
  constexpr uint32_t first = 256;
  const std::vector<std::string_view> special = {"<a>", "</a>", "1", "<x>", "", "</", "a><a>", "<a>1"};
  pieces.resize(first + special.size());
  TokenTrie trie(pieces, std::pmr::new_delete_resource());
  for (uint32_t i = 0; i < special.size(); ++i) trie.others.push_back({first + i, special[i]});
  const Constraint constraint(Kind::tags, R"j({"tags": [{"begin": "<a>", "regex": "[0-9<]+", "end": "</a>"}]})j", trie, {}, 1 << 16,
                              std::pmr::new_delete_resource());
  const auto allowed = [&](std::string_view text) {
    std::vector<uint32_t> bits(constraint.mask_words());
    EXPECT_TRUE(constraint.mask(constraint.step(constraint.start(), text), false, bits));
    std::string out;
    for (uint32_t i = 0; i < special.size(); ++i) out += bits[(first + i) / 32] >> ((first + i) % 32) & 1 ? '1' : '0';
    return out;
  };
  //                            <a> </a> 1 <x> "" </ a><a> <a>1
  EXPECT_EQ(allowed(""),       "11111110");
  EXPECT_EQ(allowed("<"),      "11111100");  // what completes a trigger begins a tag, and no special token is within it
  EXPECT_EQ(allowed("<a>"),    "00000000");
  EXPECT_EQ(allowed("<a>12"),  "01000100");
  EXPECT_EQ(allowed("<a>1<"),  "01000100");
  EXPECT_EQ(allowed("<a>1</"), "00000010");
  EXPECT_EQ(allowed("<a>1</a>"), "11111110");
}

}  // namespace
}  // namespace gptq::test
