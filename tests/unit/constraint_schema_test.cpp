// SPDX-License-Identifier: Apache-2.0
// JSON Schema, a row a keyword: which texts it allows, and where what it cannot be is refused.
#include "tests/unit/constraint_rules.h"
#include "tests/unit/constraint_schema_rows.h"

namespace gptq::test {
namespace {

TEST(ConstraintSchema, EveryKeyword) {
  for (const SchemaRow& row : schema_rows) {
    SCOPED_TRACE(row.schema);
    const Rules rules(Kind::json_schema, row.schema, bytes_alone());
    for (const char* text : row.accepted) EXPECT_TRUE(rules.accepts(text)) << text;
    for (const char* text : row.refused) EXPECT_FALSE(rules.accepts(text)) << text;
  }
}

TEST(ConstraintSchema, RefusedWithThePointer) {
  const std::pair<const char*, const char*> refused[] = {
      {R"({"type": "strin"})", "/type"},
      {R"({"properties": {"a/b": {"type": 1}}})", "/properties/a~1b/type"},
      {R"({"properties": []})", "/properties"},
      {R"({"properties": {"a": 1}})", "/properties/a"},
      {R"({"allOf": [true, {"anyOf": {}}]})", "/allOf/1/anyOf"},
      {R"({"items": {"minItems": -1}})", "/items/minItems"},
      {R"({"maxLength": "a"})", "/maxLength"},
      {R"({"minimum": "a"})", "/minimum"},
      {R"({"multipleOf": 0})", "/multipleOf"},
      {R"({"required": [1]})", "/required"},
      {R"({"multipleOf": 1234567890123456789012345678901234567})", "/multipleOf: a number of more than 36 digits"},
      {R"({"properties": {"a": {"const": -123456789012345678901234567890123456}}})", "/properties/a/const: a number that takes more than 36 bytes"},
      {R"({"enum": [1, 1e36]})", "/enum: a number that takes more than 36 bytes"},
      {R"({"minItems": 1.5})", "/minItems: a whole number"},
      {R"({"properties": {"a": {"format": "regex"}}})", "/properties/a/format"},
      {R"({"enum": 1})", "/enum"},
      {R"j({"patternProperties": {"(?=a)": true}})j", "/patternProperties"},
      {R"({"not": {"pattern": "["}})", "/not/pattern"},
      {R"({"$ref": "#/$defs/a"})", "/$ref"},
      {R"({"properties": {"a": {"$ref": "http://a.org/b"}}})", "/properties/a/$ref"},
      {R"({"$schema": "http://a.org/schema"})", "/$schema"},
      {R"({"allOf": [{"$ref": "#"}]})", "/$ref"},
      {R"({"$recursiveRef": "#"})", "/$recursiveRef"},
      {R"([])", "a schema is an object or a boolean"},
      {R"({"type": )", "schema"},
      {"false", "schema: it is false, so no text is allowed"},
      {R"({"type": "object", "required": ["a"], "properties": {"a": {"minimum": 3, "exclusiveMaximum": 3, "type": "integer"}}})", "/properties/a/minimum: it is above what"},
      {R"({"enum": []})", "enum is empty"},
      {R"({"type": "string", "enum": [1, null]})", "its type is none of its values'"},
      {R"({"allOf": [{"type": "string"}, {"type": ["null", "integer"]}]})", "has no type in common"},
      {R"({"allOf": [true, {"type": "string", "minLength": 3, "maxLength": 2}]})", "/allOf/1/minLength: it is above maxLength"},
      {R"({"type": "object", "required": ["a", "b"], "maxProperties": 1})", "/required: it has more names than maxProperties"},
      {R"({"type": "object", "minProperties": 2, "maxProperties": 1})", "/minProperties: it is above maxProperties"},
      {R"({"type": "object", "required": ["b"], "properties": {"a": true}, "additionalProperties": false})", "/required: what it wants is not allowed"},
      {R"({"type": "array", "minItems": 2, "prefixItems": [true, {"anyOf": [false, {"enum": []}]}]})", "/prefixItems/1/anyOf: none of them can hold"},
      {R"({"type": "array", "items": {"enum": [1, 2, 1.0, 2e0]}, "minItems": 3, "uniqueItems": true})", "/uniqueItems: there are fewer values than items are wanted"},
      {R"({"properties": {"a": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "uniqueItems": true}}, "required": ["a"], "type": "object"})", "/properties/a/uniqueItems"},
      {R"({"type": "array", "items": {"anyOf": [{"const": "a"}, {"type": "null"}]}, "minItems": 3, "uniqueItems": true})", "/uniqueItems"},
      {R"({"type": "array", "contains": true, "minContains": 3, "maxItems": 2})", "/contains: it wants more items"},
      {R"({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]})", "no text is allowed"},
      // Where it is only seen as a whole.
      {R"({"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 3}]})", "no text is allowed"},
      {R"({"allOf": [{"type": "integer", "multipleOf": 7}, {"multipleOf": 10}], "minimum": 1, "maximum": 69})", "no text is allowed"},
      {R"({"type": "object", "required": ["a"], "allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"minimum": 2}}}]})", "no text is allowed"},
      {R"({"type": "object", "propertyNames": {"pattern": "^[ab]$"}, "required": ["a", "c"]})", "no text is allowed"},
      {R"({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "minProperties": 3})", "no text is allowed"},
      {R"({"type": "array", "allOf": [{"items": {"enum": [1, 2]}}, {"minItems": 3, "uniqueItems": true}]})", "no text is allowed"},
      {R"({"allOf": [{"properties": {"a": true}, "unevaluatedProperties": false}, {"required": ["b"]}], "type": "object"})", "no text is allowed"},
      {R"({"type": "array", "prefixItems": [true, {"allOf": [{"const": 1}, {"const": 2}]}], "minItems": 2})", "no text is allowed"},
  };
  for (const auto& [schema, message] : refused) {
    const std::string said = refusal(Kind::json_schema, schema).message;
    EXPECT_NE(said.find(message), std::string::npos) << schema << ": " << said;
  }
}

}  // namespace
}  // namespace gptq::test
