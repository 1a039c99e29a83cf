// SPDX-License-Identifier: Apache-2.0
// Walks through constraints of every kind: masks equal trying every token, and from wherever a walk is a text can be finished.
#include <algorithm>

#include "tests/seed.h"
#include "tests/unit/constraint_rules.h"
#include "tests/unit/constraint_schema_rows.h"

namespace gptq::test {
namespace {

struct Source {
  Kind kind;
  const char* text;
  bool every_end_seen = true;
};

// Where what is left to write must be looked at as a whole, or nothing can be written any more.
const char* const narrow_schemas[] = {
    R"({"enum": ["a", "ab", "abc", 1, 12, [], [1]]})",
    R"({"type": "object", "properties": {"a": {"type": "integer", "minimum": 10, "maximum": 12}, "b": {"enum": ["x", "xy"]}, "c": {"items": {"$ref": "#/properties/b"}, "minItems": 2, "maxItems": 3}},
       "required": ["a", "c"], "additionalProperties": false})",
    R"({"anyOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "exclusiveMinimum": 0}}, "required": ["kind", "r"], "additionalProperties": false},
       {"type": "object", "properties": {"kind": {"const": "rect"}, "w": {"type": "integer"}}, "required": ["kind", "w"], "additionalProperties": false}]})",
    R"({"type": "integer", "minimum": 1000, "maximum": 1999, "multipleOf": 250})",
    R"({"type": "number", "minimum": 0.15, "maximum": 0.25})",
    R"({"type": "number", "exclusiveMinimum": -3, "exclusiveMaximum": -2})",
    R"({"type": "string", "pattern": "^[a-f]{4}$", "maxLength": 4})",
    R"({"type": "string", "pattern": "^(ab|cd)+$", "minLength": 3, "maxLength": 5})",
    R"({"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": true, "minItems": 2, "maxItems": 3})",
    R"({"type": "object", "minProperties": 2, "maxProperties": 3, "properties": {"a": true, "b": true, "c": true}, "additionalProperties": false})",
    R"({"type": "object", "properties": {"a": {"type": "null"}, "b": false}, "additionalProperties": false, "required": ["a"]})",
    R"({"type": "object", "patternProperties": {"^k[0-9]$": {"type": "boolean"}}, "additionalProperties": false, "minProperties": 1})",
    // Masks without a string's count and hash, and where these matter.
    R"({"type": "array", "items": {"type": "string"}, "uniqueItems": true})",
    R"({"type": "array", "items": {"type": "string", "pattern": "^[ab0]+(,[ab0]+)*x$"}, "uniqueItems": true})",
    R"({"type": "array", "items": {"type": "string", "pattern": "^[ab]$"}, "uniqueItems": true, "maxItems": 2})",
    R"({"type": "array", "items": {"type": "string", "pattern": "^(a|.{3})$", "maxLength": 3}, "uniqueItems": true, "maxItems": 3})",
    R"({"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 600}, "uniqueItems": true})",
    R"({"type": "array", "items": {"type": ["string", "object"], "pattern": "^a", "propertyNames": {"maxLength": 2}}, "uniqueItems": true, "maxItems": 3})",
    R"({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}, "ab": {"type": "integer"}}}, "uniqueItems": true})",
    R"({"type": "integer", "minimum": 18446744073709551613, "maximum": 18446744073709551615})",
    R"({"enum": [18446744073709551615, 18446744073709551616, -9223372036854775809]})",
    // Halves of pairs.
    R"({"type": "string", "pattern": "^[\ud83d\ude00-\ud83d\ude4f]{1,2}$"})",
    R"({"type": "string", "pattern": "^[\ue000-\uf8ff\ud83d\ude00]+$", "maxLength": 3})",
    R"({"enum": ["\ud83d\ude00", "a\udbff\udfff", "\ud7ff"]})",
    R"({"type": "object", "patternProperties": {"^[\ud83d\ude00-\ud83d\ude04]$": true}, "additionalProperties": false, "maxProperties": 2})",
    // Names that are all there, or must still come.
    R"({"type": "object", "properties": {"a": {"type": "null"}, "b": true}, "propertyNames": {"enum": ["a", "b", "c"]}})",
    R"({"$defs": {"n": {"enum": ["a", "b"]}}, "type": "object", "propertyNames": {"$ref": "#/$defs/n"}, "additionalProperties": {"type": "integer"}, "minProperties": 2})",
    R"({"type": "object", "propertyNames": {"const": "a"}})",
    R"({"type": "object", "properties": {"a": true, "b": {"type": "null"}}, "propertyNames": {"pattern": "^[ab]$"}})",
    R"({"type": "object", "properties": {"a": true, "ab": true, "k1": false}, "patternProperties": {"^a?b?$": {"type": "boolean"}, "^k[01]$": {"type": "null"}}, "propertyNames": {"minLength": 1}, "additionalProperties": false})",
    R"({"type": "object", "properties": {"aa": true}, "propertyNames": {"maxLength": 2, "pattern": "^a{1,4}$"}, "required": ["a"]})",
    R"({"type": "object", "anyOf": [{"properties": {"x": {"const": 1}}, "propertyNames": {"enum": ["x", "y"]}, "required": ["x"]}, {"properties": {"z": {"const": 2}}, "propertyNames": {"pattern": "^z$"}, "required": ["z"]}]})",
    R"({"allOf": [{"properties": {"a": {"type": "string"}, "b": {"type": "integer", "minimum": 7}}}, {"properties": {"a": {"type": "integer"}, "b": {"maximum": 5}}, "additionalProperties": {"type": "null"}}], "type": "object", "propertyNames": {"maxLength": 1}})",
    R"({"type": "object", "dependentRequired": {"a": ["b", "c"], "d": ["a"]}, "maxProperties": 3})",
    R"({"type": "object", "properties": {"a": true, "b": true, "c": false}, "dependentRequired": {"a": ["b"], "b": ["c"]}})",
    R"({"allOf": [{"required": ["a", "b"]}, {"required": ["b", "c"]}], "type": "object", "maxProperties": 4})",
    R"({"type": "object", "required": ["ab", "b"], "maxProperties": 2})",
    R"({"type": "array", "items": {"type": "object", "required": ["a"], "patternProperties": {"^k[0-2]$": {"const": 12}, "^a": true}, "unevaluatedProperties": false}, "uniqueItems": true})",
    // Items that must be one that `contains` has, or must not.
    R"({"type": "array", "contains": {"const": 1}, "minContains": 2, "maxItems": 3, "items": {"type": ["integer", "string"]}})",
    R"({"type": "array", "prefixItems": [{"type": "string"}, {"enum": [2, 3]}], "items": {"type": "integer"}, "contains": {"const": 1}, "maxItems": 4})",
    R"({"allOf": [{"type": "array", "maxItems": 3}, {"contains": {"type": "string"}, "minContains": 2}, {"contains": {"type": "object", "required": ["k"]}}]})",
    R"({"type": "array", "items": {"type": "integer"}, "contains": {"type": "integer"}, "maxContains": 2})",
    R"({"type": "array", "items": {"type": ["integer", "null"]}, "contains": {"type": "integer"}, "maxContains": 1, "minItems": 2})",
    R"({"allOf": [{"items": {"type": "integer"}}, {"prefixItems": [true, {"minimum": 3}, {"type": "string"}]}], "type": "array"})",
    R"({"type": "array", "contains": {"type": "string", "minLength": 3}, "maxContains": 1, "maxItems": 3})",
    // Numbers that several must hold to.
    R"({"type": "integer", "allOf": [{"multipleOf": 6}, {"multipleOf": 10}], "minimum": 100, "maximum": 140})",
    R"({"type": "integer", "multipleOf": 0.4, "exclusiveMinimum": 0, "maximum": 3})",
    R"({"allOf": [{"enum": [1, 12, 125, 70]}, {"multipleOf": 5}, {"maximum": 100}]})",
    R"({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2}, "uniqueItems": true})",
    R"({"type": "array", "items": {"enum": ["", true, 0, null]}, "uniqueItems": true})",
    R"({"type": "string", "pattern": "[0-9]{4}", "minLength": 4, "maxLength": 4})",
    R"({"type": "string", "pattern": "^a+$|^b{3}$", "minLength": 3, "maxLength": 900})",
    R"({"type": "string", "pattern": "^$|^([^ ]+ ){0,9}[^ ]+$", "maxLength": 700})",
    R"({"oneOf": [{"type": "object", "properties": {"k": {"const": "a"}, "l": true}, "required": ["k"], "additionalProperties": false},
       {"type": "object", "properties": {"k": {"const": "b"}, "m": true}, "required": ["k"], "additionalProperties": false}]})",
};

const Source others[] = {
    {Kind::choice, R"(["north", "northwest", "no", "\u00e9t\u00e9"])"},
    {Kind::regex, "(a|b)*a(a|b){6}"},
    {Kind::regex, "\\d{4}-\\d\\d( [a-z]+)*[.!?]"},
    {Kind::regex, "[^\"]{1,9}|\xe6\xbc\xa2+"},
    {Kind::grammar, "root ::= \"(\" root \")\" | [ab]+"},
    {Kind::grammar, "root ::= e\ne ::= t (\"+\" t)*\nt ::= f (\"*\" f)*\nf ::= \"(\" e \")\" | [0-9]+"},
    {Kind::tags, R"({"tags": [{"begin": "<a>", "regex": "[ab]*<?", "end": "</a>"}, {"begin": "a<b", "choice": ["x", "xy", "0"], "end": "\"\""}]})"},
    {Kind::tags, R"({"tags": [{"begin": "\": a", "json_schema": {"type": "array", "items": {"enum": ["a", 1]}}, "end": "a]"}, {"begin": "\": b", "json_schema": {"type": "string", "maxLength": 3}}],
       "triggers": ["\":"]})"},
    {Kind::tags, R"({"tags": [{"begin": "\"", "grammar": "root ::= \"(\" root \")\" | [0-9]*", "end": "\""}], "at_least_one": true, "stop_after_first": true})"},
    {Kind::tags, R"({"tags": [{"begin": "a", "json_schema": {"enum": [1, 12, "a"]}, "end": "2a"}]})"},
    {Kind::tags, R"({"tags": [{"begin": "<a", "json_compact": {"properties": {"b": true, "a": {"const": ["a", 1]}}, "required": ["a"]}, "end": "a>"}, {"begin": "<b", "json_schema": {"const": ["a", 1]}}]})"},
};

// More closed branches than a key in progress was once looked at for.
const std::string& many_branches() {
  static const std::string schema = [] {
    std::string text = R"({"anyOf": [)";
    for (int i = 0; i < 90; ++i) {
      const std::string n = std::to_string(i);
      text += (i ? "," : "") + (R"({"type": "object", "properties": {"k)" + n + R"(": {"type": "null"}, "f)" + n + R"(": {"type": "integer"}}, "required": ["k)" + n + R"("], "additionalProperties": false})");
    }
    return text + "]}";
  }();
  return schema;
}

std::vector<Source> sources() {
  std::vector<Source> all(std::begin(others), std::end(others));
  for (const Kind kind : {Kind::json_schema, Kind::json_compact}) {
    for (const SchemaRow& row : schema_rows) all.push_back({kind, row.schema, row.every_end_seen});
    for (const char* schema : narrow_schemas) all.push_back({kind, schema});
  }
  all.push_back({Kind::json_schema, many_branches().c_str()});
  return all;
}

// A text of compact JSON as the plain kind judges it, which allows its schema's values and all ways to write them.
void expect_valid(const Source& source, const std::string& text) {
  const bool valid = source.kind != Kind::json_compact || accepts(Kind::json_schema, source.text, text);
  EXPECT_TRUE(valid) << source.text << ": " << text;
}

// What stands in quotes in the source, with its quotes, and pieces of JSON.
std::vector<std::string> words_of(std::string_view source, std::mt19937& random) {
  std::vector<std::string> words{"\":", "\", \"", "{\"",   "\"}",   "}]",    "  ",       " a",       "0.",  "12",
                                 "e5",  "true",   "null,", "\\u00", "\\n\"", "\xc3\xa9", "\xf0\x9f", "\"\"", "\\ud83d", "\\uD9", "\\udbff\\udf"};
  for (size_t at = 0; (at = source.find('"', at)) != std::string_view::npos;) {
    const size_t end = source.find('"', at + 1);
    if (end == std::string_view::npos) break;
    words.emplace_back(source.substr(at, end + 1 - at));
    at = end + 1;
  }
  for (int i = 0; i < 60; ++i) {
    words.emplace_back();
    for (unsigned n = 2 + random() % 3; n; --n) words.back() += " \"{}[]:,ab01-.\\u"[random() % 16];
  }
  return words;
}

struct Walk {
  Walk(const Source& source, Rules& rules) : source(source), rules(rules) {}
  // The allowed tokens of where it is.
  std::vector<size_t> allowed() {
    EXPECT_TRUE(rules.mask(state, text)) << text;
    std::vector<size_t> tokens;
    for (size_t id = 0; id < rules.vocabulary.pieces().size(); ++id)
      if (rules.may(id)) tokens.push_back(id);
    return tokens;
  }
  void take(size_t token) {
    const std::string& piece = rules.vocabulary.pieces()[token];
    text += piece;
    state = rules.constraint.step(state, piece);
    if (state == Constraint::lost) state = rules.after(text);
    ASSERT_NE(state, Constraint::dead) << source.text << ": " << text;
  }
  const Source& source;
  Rules& rules;
  std::string text;
  Constraint::State state = rules.constraint.start();
};

TEST(ConstraintWalk, MasksEqualTryingEveryToken) {
  std::mt19937 random(seed(3));
  for (const Source& source : sources()) {
    const Vocabulary vocabulary(words_of(source.text, random));
    Rules rules(source.kind, source.text, vocabulary);
    for (int way = 0; way < 3; ++way) {
      Walk walk(source, rules);
      for (int steps = 0; steps < 14; ++steps) {
        std::vector<size_t> choice;
        for (const size_t id : walk.allowed())
          if (id != Vocabulary::end) choice.push_back(id);
        for (size_t id = 0; id < vocabulary.pieces().size(); ++id) {
          const auto after = rules.after(walk.text + vocabulary.pieces()[id]);
          const bool expected = id == Vocabulary::end ? rules.constraint.accepts(rules.after(walk.text)) : after != Constraint::dead;
          ASSERT_EQ(rules.may(id), expected) << source.text << ": " << walk.text << " + " << vocabulary.pieces()[id];
        }
        ASSERT_EQ(rules.constraint.complete(rules.after(walk.text)), rules.may(Vocabulary::end) && choice.empty())
            << source.text << ": " << walk.text;
        if (choice.empty()) break;
        walk.take(choice[random() % choice.size()]);
      }
    }
  }
}

// Over all counts where a mask could stop to leave them out.
TEST(ConstraintWalk, LongStringsAndTheirLimits) {
  std::mt19937 random(seed(6));
  const char* const schemas[] = {
      R"({"type": "string", "pattern": "^([ab]+ ?)*$", "minLength": 260, "maxLength": 790})",
      R"({"type": "string", "pattern": "^([ab]{2})*$|^a*$", "minLength": 300})",
      R"({"type": "array", "items": {"type": "string", "pattern": "^([ab\u00e9]+ ?)*$", "minLength": 5, "maxLength": 800}, "uniqueItems": true})",
  };
  std::vector<std::string> words{"a b", "\xc3", "\xc3\xa9", "\xa9", "b\"", "a\"]", "\", \"", "\\u0061", "\\n"};
  for (const size_t n : {8, 17, 31, 64, 128, 200, 255})
    for (const char* c : {"a", "ab ", "ba"}) {
      words.emplace_back();
      while (words.back().size() < n) words.back() += c;
      words.back().resize(n);
    }
  const Vocabulary vocabulary(words);
  for (const std::string_view schema : schemas) {
    Rules rules(Kind::json_schema, schema, vocabulary);
    const std::string begin = schema.find("array") != schema.npos ? "[\"aaaaa\", \"abbab\", \"" : "\"";
    for (const size_t n : {0, 1, 4, 5, 59, 60, 255, 256, 257, 258, 259, 260, 277, 278, 279, 280, 288, 289, 290, 299, 300, 535, 788, 789, 790, 799, 800}) {
      std::string text = begin;
      for (size_t i = 0; i < n; ++i) text += i % 40 == 20 && i + 1 < n ? "aab "[random() % 3] : "ab"[random() % 2];
      Constraint::State state = rules.after(text);
      if (state == Constraint::dead) continue;
      ASSERT_TRUE(rules.mask(state, text));
      for (size_t id = 0; id < vocabulary.pieces().size(); ++id)
        if (id != Vocabulary::end) {
          ASSERT_EQ(rules.may(id), rules.after(text + vocabulary.pieces()[id]) != Constraint::dead) << schema << ": " << n << " + " << vocabulary.pieces()[id];
        }
    }
  }
}

// The search where an item begins takes too long to be exact; those within it do not, and must not be answered by it.
TEST(ConstraintWalk, ItemsThatAreAllTakenAreNotBegunAgain) {
  std::string names = R"("b")", text = "[";
  for (int i = 10; i < 74; ++i) {
    const std::string name = '"' + ("a" + std::to_string(i)) + std::string(20, 'x') + '"';
    names += ", " + name;
    text += name + ", ";
  }
  const Vocabulary vocabulary({"\"a2", "\"b\"", "b", "xx"});
  Rules rules(Kind::json_schema, R"({"type": "array", "uniqueItems": true, "items": {"type": "string", "enum": [)" + names + "]}}", vocabulary);
  for (int i = 10; i < 74; ++i) EXPECT_EQ(rules.after(text + "\"a" + std::to_string(i)), Constraint::dead) << i;
  EXPECT_NE(rules.after(text + "\"b\"]"), Constraint::dead);
  Rules escapes(Kind::json_schema, R"({"type": "array", "items": {"type": "string", "pattern": "^[ab]+x$"}, "uniqueItems": true})", vocabulary);
  EXPECT_EQ(escapes.after(R"(["ax", "a\u007)"), Constraint::dead);
  EXPECT_NE(escapes.after(R"(["bx", "a\u007)"), Constraint::dead);
}

TEST(ConstraintWalk, FirstTokenMayLoseItsSpace) {
  std::mt19937 random(seed(4));
  const Vocabulary vocabulary({" a", " b", "  a", "a", " ab"});
  Rules rules(Kind::regex, " ?ab", vocabulary);
  ASSERT_TRUE(rules.constraint.mask(rules.constraint.start(), true, rules.bits));
  for (size_t id = 0; id < vocabulary.pieces().size(); ++id) {
    std::string piece = vocabulary.pieces()[id];
    if (piece.starts_with(' ')) piece.erase(0, 1);
    EXPECT_EQ(rules.may(id), id != Vocabulary::end && rules.after(piece) != Constraint::dead) << piece;
  }
}

bool in_string(std::string_view json) {
  bool inside = false;
  for (size_t i = 0; i < json.size(); ++i)
    if (json[i] == '\\') ++i;
    else if (json[i] == '"') inside = !inside;
  return inside;
}

// What most likely leads to an end: what closes, or one of the source's words, or any that begins nothing.
size_t towards_end(const Walk& walk, const std::vector<size_t>& tokens, std::mt19937& random) {
  const auto& pieces = walk.rules.vocabulary.pieces();
  const bool inside = in_string(walk.text);
  const auto is_word = [&](size_t id) { return pieces[id].size() > 2 && pieces[id].front() == '"' && pieces[id].back() == '"'; };
  const auto is_plain = [&](size_t id) {
    return pieces[id].size() == 1 && std::string_view("\\{[ \t\n\r").find(pieces[id][0]) == std::string_view::npos;
  };
  std::vector<size_t> choice;
  const unsigned way = random() % 3;
  if (way == 0)
    for (const char c : std::string_view(inside ? "\"" : "}]),:0123456789\""))
      if (choice.empty() && walk.rules.may(static_cast<uint8_t>(c))) choice.push_back(static_cast<uint8_t>(c));
  for (const size_t id : tokens)
    if (choice.empty() || way) {
      if (id != Vocabulary::end && (way == 1 ? is_word(id) : is_plain(id))) choice.push_back(id);
    }
  if (choice.empty())
    for (const size_t id : tokens)
      if (id != Vocabulary::end) choice.push_back(id);
  return choice[random() % choice.size()];
}

// At random for a while, then towards an end.
void finish_at_random(const Source& source, Rules& rules, std::mt19937& random) {
  Walk walk(source, rules);
  const int free_steps = static_cast<int>(random() % 40);
  for (int steps = 0; steps < 4000; ++steps) {
    const std::vector<size_t> tokens = walk.allowed();
    ASSERT_FALSE(tokens.empty()) << source.text << ": nothing can follow " << walk.text;
    if (rules.may(Vocabulary::end) && (steps >= free_steps || tokens.size() == 1)) {
      EXPECT_TRUE(rules.accepts(walk.text)) << source.text << ": " << walk.text;
      expect_valid(source, walk.text);
      return;
    }
    size_t token = tokens[random() % tokens.size()];
    if (steps >= free_steps || token == Vocabulary::end) token = towards_end(walk, tokens, random);
    walk.take(token);
  }
  ADD_FAILURE() << source.text << ": no end after " << walk.text.substr(0, 500);
}

TEST(ConstraintWalk, EveryWalkCanBeFinished) {
  std::mt19937 random(seed(5));
  for (const Source& source : sources()) {
    if (!source.every_end_seen) continue;
    const Vocabulary vocabulary(words_of(source.text, random));
    Rules rules(source.kind, source.text, vocabulary);
    for (int way = 0; way < 30; ++way) finish_at_random(source, rules, random);
  }
}

}  // namespace
}  // namespace gptq::test
