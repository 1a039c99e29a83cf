// SPDX-License-Identifier: Apache-2.0
// Schemas, a row a keyword, with texts that each allows and refuses.
#pragma once
#include <vector>

namespace gptq::test {

struct SchemaRow {
  const char* schema;
  std::vector<const char*> accepted, refused;
  bool every_end_seen = true;  // no text is begun that cannot be finished
};

inline const SchemaRow schema_rows[] = {
    // Any value, and JSON itself.
    {"true", {"1", "null", "[]", "{\"a\": [true, {}]}", "-0.5e+10", R"("\u00e9\ud83d\ude00\n")", "\"\xc3\xa9\""},
     {"", "01", "1.", "nul", "[1,]", "{\"a\" 1}", "{a: 1}", "\"a", R"("\x")", R"("\ud83d")", "\"\xff\"", "\"\t\"", "1 2", "+1", ".5"}},
    {"{}", {"1", "{ }", "[ 1 , 2 ]", "[\n1]"}, {" 1", "1 "}},
    {R"({"type": "null"})", {"null"}, {"0", "false", "\"null\""}},
    {R"({"type": "boolean"})", {"true", "false"}, {"null", "1", "\"true\""}},
    {R"({"type": "integer"})", {"0", "-12", "1.0", "100"}, {"1.5", "\"1\"", "true"}},
    {R"({"type": "number"})", {"0", "-12.25", "1e9"}, {"\"1\"", "null"}},
    {R"({"type": "string"})", {"\"\"", "\"a\""}, {"1", "null", "[]"}},
    {R"({"type": "array"})", {"[]", "[1, [2]]"}, {"{}", "1"}},
    {R"({"type": "object"})", {"{}", "{\"a\": 1}"}, {"[]", "\"{}\""}},
    {R"({"type": ["null", "string"]})", {"null", "\"x\""}, {"1", "true"}},
    {R"({"const": {"a": [1, null]}})", {"{\"a\": [1, null]}", "{\"a\":[1.0,null]}"}, {"{}", "{\"a\": [1]}", "{\"a\": [1, null], \"b\": 1}", "{\"a\": [2, null]}"}},
    {R"({"const": 10})", {"10", "1e1", "10.0"}, {"1", "100", "11", "\"10\""}},
    {R"({"enum": ["red", "read", 5, null, false, [1], {"k": "v"}]})", {"\"red\"", "\"read\"", "5", "null", "false", "[1]", "{\"k\":\"v\"}", R"("r\u0065d")"},
     {"\"re\"", "\"reads\"", "true", "6", "[2]", "[]", "{}", "{\"k\":\"w\"}"}},
    // Of numbers.
    {R"({"type": "integer", "minimum": 3, "maximum": 17})", {"3", "10", "17"}, {"2", "18", "170", "-5", "0"}},
    {R"({"minimum": -1.5})", {"-1.5", "0", "-1.25", "7e3"}, {"-1.75", "-2", "-15"}},
    {R"({"exclusiveMinimum": 0, "exclusiveMaximum": 1})", {"0.5", "0.001", "0.05e1"}, {"0", "1", "1.0", "0.0", "-0.5"}},
    {R"({"exclusiveMinimum": true, "minimum": 2})", {"2.5", "3"}, {"2", "1"}},
    {R"({"type": "integer", "multipleOf": 7})", {"0", "7", "-14", "7e0"}, {"1", "8", "15"}},
    {R"({"multipleOf": 0.01})", {"0.07", "1", "12.34", "4.02"}, {"0.075", "0.001"}},
    // Of strings.
    {R"({"minLength": 2, "maxLength": 3})", {"\"ab\"", "\"abc\"", "\"\xc3\xa9\xc3\xa9\"", R"("\u00e9\ud83d\ude00")", "1"}, {"\"a\"", "\"abcd\"", "\"\xf0\x9f\x98\x80\""}},
    {R"({"pattern": "^[a-c]+$"})", {"\"abc\"", R"("\u0061")", "5"}, {"\"\"", "\"abd\"", R"("\u0064")"}},
    {R"({"pattern": "b"})", {"\"abc\"", "\"b\""}, {"\"\"", "\"ac\""}},
    {R"({"format": "date"})", {"\"2024-02-29\"", "\"2000-12-31\"", "3"}, {"\"2024-13-01\"", "\"24-01-01\"", "\"2023-02-29\"", "\"1900-02-29\"", "\"2024-04-31\""}},
    {R"({"format": "time"})", {"\"10:20:30Z\"", "\"10:20:30.5+02:00\"", "\"23:59:60Z\""}, {"\"10:20\"", "\"25:00:00Z\"", "\"10:20:60Z\""}},
    {R"({"format": "duration"})", {"\"P1Y2M3DT4H5M6S\"", "\"P3W\"", "\"PT1M\""}, {"\"P\"", "\"PT\"", "\"P1\"", "\"1Y\"", "\"P1D2H\""}},
    {R"({"format": "ipv6"})", {"\"::\"", "\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"1::8\"", "\"1:2::3:4\"", "\"::ffff:1.2.3.4\""}, {"\"1\"", "\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\"12345::\"", "\"::1.2.3\""}},
    {R"({"format": "uri-reference"})", {"\"/a?b#c\"", "\"\""}, {"\"a b\"", "\"a<b\""}},
    {R"({"format": "json-pointer"})", {"\"\"", "\"/a~0~1b/0\""}, {"\"a\"", "\"/a~2\""}},
    {R"({"format": "date-time"})", {"\"2024-02-29T10:20:30Z\""}, {"\"2024-02-29\"", "\"2024-02-29 10:20:30Z\""}},
    {R"({"format": "uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123e4567\""}},
    {R"({"format": "ipv4"})", {"\"127.0.0.1\""}, {"\"127.0.0.256\"", "\"1.2.3\""}},
    {R"({"format": "hostname"})", {"\"a.b-c.org\""}, {"\"-a.org\"", "\"a b\""}},
    {R"({"format": "email"})", {"\"a.b@c.org\""}, {"\"a.b\"", "\"@c.org\""}},
    {R"({"format": "uri"})", {"\"http://a.org/b?c#d\""}, {"\"/b\"", "\"a b\""}},
    {R"({"$schema": "https://json-schema.org/draft/2020-12/schema", "format": "date"})", {"\"2024-13-01\""}, {}},
    // Of objects.
    {R"({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}})", {"{}", "{\"b\": \"x\", \"a\": 1}", "{\"c\": null}", R"({"\u0061": 1})"},
     {"{\"a\": \"x\"}", "{\"b\": 1}", R"({"\u0061": "x"})", "{\"a\": 1, \"a\": 2}"}},
    {R"({"required": ["a", "b"]})", {"{\"b\": 1, \"a\": 2}", "{\"a\": 1, \"b\": 2, \"c\": 3}", "[]"}, {"{}", "{\"a\": 1}"}},
    {R"({"properties": {"a": true}, "additionalProperties": false})", {"{}", "{\"a\": 1}"}, {"{\"b\": 1}", "{\"aa\": 1}", "{\"\": 1}"}},
    {R"({"properties": {"a": true}, "additionalProperties": {"type": "null"}})", {"{\"a\": 1, \"b\": null}"}, {"{\"b\": 1}"}},
    {R"({"patternProperties": {"^x": {"type": "integer"}, "y$": {"minimum": 5}}})", {"{\"xa\": 1, \"ay\": 5, \"xy\": 6, \"z\": null}"}, {"{\"xa\": null}", "{\"xy\": 4}"}},
    {R"({"patternProperties": {"^x+$": true}, "additionalProperties": false})", {"{\"x\": 1, \"xx\": 2}"}, {"{\"xy\": 1}", "{\"\": 1}"}},
    {R"({"propertyNames": {"maxLength": 2, "pattern": "^[ab]"}})", {"{}", "{\"a\": 1, \"bc\": 2}"}, {"{\"abc\": 1}", "{\"c\": 1}", "{\"\": 1}"}},
    {R"({"minProperties": 1, "maxProperties": 2})", {"{\"a\": 1}", "{\"a\": 1, \"b\": 1}"}, {"{}", "{\"a\": 1, \"b\": 1, \"c\": 1}"}},
    {R"({"dependentRequired": {"a": ["b"]}})", {"{}", "{\"b\": 1}", "{\"a\": 1, \"b\": 1}", "{\"b\": 1, \"a\": 1}"}, {"{\"a\": 1}"}},
    {R"({"dependentSchemas": {"a": {"maxProperties": 1}}})", {"{\"a\": 1}", "{\"b\": 1, \"c\": 1}"}, {"{\"a\": 1, \"b\": 1}", "{\"b\": 1, \"a\": 1}"}},
    {R"({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}})", {"{\"a\": 1, \"b\": 1}", "{\"c\": 1, \"d\": 1}"}, {"{\"a\": 1}", "{\"c\": 1}"}},
    {R"({"allOf": [{"properties": {"a": true}}], "unevaluatedProperties": false})", {"{}", "{\"a\": 1}"}, {"{\"b\": 1}"}},
    {R"({"anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": true}}], "unevaluatedProperties": {"type": "null"}})",
     {"{\"a\": 1, \"b\": 2}", "{\"b\": 1, \"c\": null}", "{\"a\": null}"}, {"{\"a\": 2}", "{\"c\": 1}"}, false},
    // Of arrays.
    {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}]})", {"[]", "[1]", "[1, \"a\", null]"}, {"[\"a\"]", "[1, 2]"}},
    {R"({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}})", {"[1, null, null]"}, {"[1, 2]", "[null]"}},
    {R"({"prefixItems": [true], "items": false})", {"[]", "[1]"}, {"[1, 2]"}},
    {R"({"items": [{"type": "integer"}], "additionalItems": {"type": "string"}})", {"[1, \"a\"]"}, {"[1, 2]", "[\"a\"]"}},
    {R"({"items": {"type": "integer"}})", {"[]", "[1, 2]"}, {"[1, \"a\"]"}},
    {R"({"contains": {"type": "integer"}})", {"[\"a\", 1]", "[1, 2]"}, {"[]", "[\"a\"]"}},
    {R"({"contains": {"type": "integer"}, "minContains": 2, "maxContains": 3})", {"[1, null, 2]", "[1, 2, 3]"}, {"[1]", "[1, 2, 3, 4]"}},
    {R"({"contains": {"type": "integer"}, "minContains": 0, "maxContains": 1})", {"[]", "[null, 1]"}, {"[1, 2]"}},
    {R"({"minItems": 1, "maxItems": 2})", {"[1]", "[1, 2]"}, {"[]", "[1, 2, 3]"}},
    {R"({"uniqueItems": true})", {"[1, 2, \"1\", [1], {\"a\": 1, \"b\": 2}]", "[{\"a\": 1}, {\"a\": 2}]"},
     {"[1, 1]", "[1, 1.0]", "[{\"a\": 1, \"b\": 2}, {\"b\": 2, \"a\": 1}]", R"(["a", "\u0061"])"}},
    {R"({"prefixItems": [true], "unevaluatedItems": false})", {"[1]"}, {"[1, 2]"}},
    {R"({"allOf": [{"prefixItems": [true]}, {"unevaluatedItems": true}], "unevaluatedItems": false})", {"[1, 2]"}, {}},
    {R"({"contains": {"const": 1}, "unevaluatedItems": {"type": "string"}})", {"[1, \"a\"]", "[\"a\", 1, 1]"}, {"[1, 2]", "[\"a\"]"}},
    // Of several schemas.
    {R"({"allOf": [{"minimum": 3}, {"maximum": 5}]})", {"4"}, {"2", "6"}},
    {R"({"anyOf": [{"type": "string"}, {"minimum": 5}]})", {"\"a\"", "7", "null"}, {"3"}},
    {R"({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]})", {"2", "9"}, {"6", "7", "null"}, false},
    {R"({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"})", {"{\"a\": 1}", "{\"b\": 1}"}, {"{}", "{\"a\": 1, \"b\": 1}"}},
    {R"({"not": {"type": "string"}})", {"1", "{}"}, {"\"a\""}},
    {R"({"not": {"required": ["a"]}, "type": "object"})", {"{}", "{\"b\": 1}"}, {"{\"a\": 1}"}},
    {R"({"if": {"properties": {"t": {"const": 1}}, "required": ["t"]}, "then": {"required": ["a"]}, "else": {"required": ["b"]}})",
     {"{\"t\": 1, \"a\": 0}", "{\"b\": 0}", "{\"b\": 1, \"t\": 2}", "5"}, {"{\"t\": 1}", "{\"t\": 1, \"b\": 0}", "{\"t\": 2}", "{}"}},
    // References.
    {R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}})", {"1"}, {"\"a\""}},
    {R"({"$defs": {"a~/b%": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/a~0~1b%25"}}})", {"{\"x\": 1}"}, {"{\"x\": null}"}},
    {R"({"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false})", {"{}", "{\"next\": {\"next\": {}}}"}, {"{\"next\": {\"a\": 1}}", "{\"next\": 1}"}},
    {R"({"$ref": "#here", "$defs": {"x": {"$anchor": "here", "type": "null"}}})", {"null"}, {"1"}},
    {R"({"$id": "http://a.org/b/c.json", "$ref": "d.json", "$defs": {"x": {"$id": "http://a.org/b/d.json", "type": "null"}}})", {"null"}, {"1"}},
    {R"({"$dynamicAnchor": "node", "type": "array", "items": {"$dynamicRef": "#node"}})", {"[]", "[[[]]]"}, {"[1]", "[[1]]"}},
    {R"({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#/definitions/d", "type": "null"}}, "definitions": {"d": {"type": "integer"}}})",
     {"{\"a\": 1}"}, {"{\"a\": null}"}},
    // What says nothing of the value.
    {R"({"title": "a", "description": "b", "default": 1, "examples": [1], "deprecated": true, "$comment": "c", "x-own": {"type": "null"}, "contentEncoding": "base64"})", {"1", "null"}, {}},
    {R"({"then": false, "else": false, "minContains": 3})", {"1", "[]"}, {}},
};

}  // namespace gptq::test
