// SPDX-License-Identifier: Apache-2.0
// Compact JSON: of all ways to write a value one is allowed, and the byte that leaves it is refused.
#include "tests/unit/constraint_rules.h"

namespace gptq::test {
namespace {

struct CompactRow {
  const char* schema;
  std::vector<const char*> accepted;
  std::vector<std::pair<const char*, size_t>> refused;  // and the byte
};

const CompactRow rows[] = {
    {"true",
     {"1", "null", "[]", "{}", "[1,[true,{}]]", R"({"b":1,"a":{"d":2,"c":3}})", R"("a / b")", R"("\"\\\b\f\n\r\t\u0000\u001f\u000b")", "\"\xc3\xa9\x7f\""},
     {{" 1", 0}, {"1 ", 1}, {"[ ]", 1}, {"[1 ]", 2}, {"[1, 2]", 3}, {"{ }", 1}, {R"({"a" :1})", 4}, {R"({"a": 1})", 5}, {R"({"a":1 })", 6},
      {R"({"a":1, "b":2})", 7}, {"[\n1]", 1}, {"[1,\t2]", 3}, {"[true\r]", 5}, {R"("\/")", 2}, {R"("\u0041")", 5}, {R"("\u00e9")", 5}, {R"("\u000a")", 6},
      {R"("\u001F")", 6}, {R"("\u0008")", 6}, {R"("\u1000")", 3}, {R"("\u0100")", 4}, {R"("\ud83d\ude00")", 3}, {R"({"\u0061":1})", 6}}},
    // The schema's order, each key once or not at all.
    {R"({"properties": {"z": {"type": "integer"}, "a": {"type": "integer"}, "m": {"type": "integer"}}, "required": ["a"], "additionalProperties": false, "type": "object"})",
     {R"({"z":1,"a":2,"m":3})", R"({"a":2})", R"({"z":1,"a":2})", R"({"a":2,"m":3})"},
     {{R"({"m)", 2}, {R"({"a":2,"z)", 8}, {R"({"a":2,"a)", 8}, {R"({"z":1,"m)", 8}, {R"({"a":1,"m":1,)", 12}, {R"({"z":1})", 6}, {"{}", 1}}},
    // Others only behind those that are named.
    {R"({"properties": {"b": true, "a": true}, "required": ["b", "c"], "type": "object"})",
     {R"({"b":1,"c":1})", R"({"b":1,"a":2,"c":1,"x":1,"d":[]})", R"({"b":1,"c":2,"bb":3})"},
     {{R"({"x)", 2}, {R"({"bb)", 3}, {R"({"b":1,"x)", 8}, {R"({"b":1,"c":1,"a":)", 15}, {R"({"b":1,"c":1,"x":1,"c":)", 21}, {R"({"b":1,"a":1})", 12}}},
    {R"({"properties": {"k": true}, "patternProperties": {"^k[0-9]$": {"type": "null"}}, "additionalProperties": false, "minProperties": 1})",
     {R"({"k":1})", R"({"k":1,"k1":null})", R"({"k2":null,"k1":null})"},
     {{"{}", 1}, {R"({"k1":null,"k":)", 13}, {R"({"k1":1)", 6}}},
    // Of each object its own.
    {R"({"properties": {"x": {"properties": {"b": true, "a": true}}, "y": {"properties": {"a": true, "b": true}}}})",
     {R"({"x":{"b":1,"a":1},"y":{"a":1,"b":1}})"},
     {{R"({"x":{"a":1,"b":1}})", 14}, {R"({"x":{},"y":{"b":1,"a":)", 21}}},
    // Several schemas: what comes first in the text does, and one name has one place.
    {R"({"allOf": [{"properties": {"id": true, "kind": true}}], "properties": {"kind": true, "size": true}, "required": ["size"]})",
     {R"({"id":1,"kind":2,"size":3})", R"({"size":3})"},
     {{R"({"kind":2,"id":)", 11}, {R"({"size":1,"id":)", 13}}},
    {R"({"properties": {"kind": true, "size": true}, "$ref": "#/$defs/base", "$defs": {"base": {"properties": {"id": true, "kind": true}}}})",
     {R"({"kind":2,"size":3,"id":1})", R"({"id":1})"},
     {{R"({"id":1,"kind":)", 13}}},
    {R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": true}, "required": ["kind", "x"], "additionalProperties": false},
                   {"type": "object", "properties": {"kind": {"const": "b"}, "y": true}, "required": ["kind", "y"], "additionalProperties": false}]})",
     {R"({"kind":"a","x":1})", R"({"kind":"b","y":1})"},
     {{R"({"x)", 2}, {R"({"kind":"a","y)", 13}, {R"({"kind":"c)", 9}}},
    {R"({"anyOf": [{"required": ["c"], "properties": {"a": true, "b": true}}, {"required": ["a"]}], "type": "object"})",
     {R"({"a":1})", R"({"b":1,"c":1})", R"({"a":1,"b":2,"c":3,"d":4})"},
     {{R"({"b":1})", 6}, {R"({"b":1,"d)", 8}, {R"({"c":1,"a":)", 9}}},
    {R"({"type": "object", "properties": {"a": true, "b": true}, "dependentRequired": {"b": ["a"]}})",
     {R"({"a":1,"b":2})", R"({"a":1,"c":2})", R"({})"},
     {{R"({"b":)", 3}, {R"({"c":1,"b":)", 9}}},
    {R"({"type": "object", "properties": {"a": true, "b": true, "c": true}, "minProperties": 2, "additionalProperties": false})",
     {R"({"a":1,"c":2})", R"({"b":1,"c":2})"},
     {{R"({"c)", 2}, {R"({"b":1})", 6}}},
    {R"({"if": {"properties": {"t": {"const": "x"}}}, "then": {"required": ["u"]}, "properties": {"u": true, "t": {"type": "string"}}})",
     {R"({"u":1,"t":"x"})", R"({"u":1})", R"({"t":"y"})", R"({"t":"xx"})"},
     {{R"({"t":"x"})", 7}, {R"({"t":"y","u":)", 11}}},
    {R"({"const": {"b": [1, {"y": 1, "x": 2}], "a": null}})", {R"({"b":[1,{"y":1,"x":2}],"a":null})"}, {{R"({"a)", 2}, {R"({"b":[1,{"x)", 10}}},
    {R"({"enum": ["caf\u00e9", "a\nb", "\u0001\"", "/"]})",
     {"\"caf\xc3\xa9\"", R"("a\nb")", R"("\u0001\"")", R"("/")"},
     {{R"("caf\u)", 4}, {R"("\u0000)", 6}, {R"("\/)", 2}, {R"("\n)", 2}}},
    {R"({"items": {"type": "integer", "maximum": 20}})", {"[-1,0,10]"}, {{"[1.0]", 2}, {"[1e1]", 2}}},
    {R"({"enum": [10, 2]})", {"10", "2"}, {{"1e1", 1}, {"10.", 2}}},
    {R"({"enum": [10, 0.5]})", {"10", "0.5"}, {{"0.25", 2}}},
    {R"({"type": "string", "maxLength": 2})", {R"("\n\\")", R"("ab")"}, {{R"("\n\\a)", 5}}},
};

// The search for a key builds plans, whose own searches leave it as it was.
TEST(ConstraintCompact, KeysBesideOnesThatAreNeverFulfilled) {
  EXPECT_TRUE(accepts(Kind::json_compact,
                      R"({"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": false, "minProperties": 1,
                          "patternProperties": {"^a": {"type": "object", "required": ["a"], "propertyNames": {"pattern": "^k[0-2]$"}}}})",
                      R"({"b":"x"})"));
}

TEST(ConstraintCompact, OneWayToWriteAValue) {
  for (const CompactRow& row : rows) {
    SCOPED_TRACE(row.schema);
    const Rules compact(Kind::json_compact, row.schema, bytes_alone()), plain(Kind::json_schema, row.schema, bytes_alone());
    for (const char* text : row.accepted) {
      EXPECT_TRUE(compact.accepts(text)) << text;
      EXPECT_TRUE(plain.accepts(text)) << text;
    }
    for (const auto& [text, byte] : row.refused) {
      const std::string_view view(text);
      EXPECT_NE(compact.after(view.substr(0, byte)), Constraint::dead) << text;
      EXPECT_EQ(compact.after(view.substr(0, byte + 1)), Constraint::dead) << text;
    }
  }
}

}  // namespace
}  // namespace gptq::test
