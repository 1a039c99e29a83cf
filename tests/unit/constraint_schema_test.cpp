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
      {"false", "no text is allowed"},
  };
  for (const auto& [schema, message] : refused) {
    const std::string said = refusal(Kind::json_schema, schema).message;
    EXPECT_NE(said.find(message), std::string::npos) << schema << ": " << said;
  }
}

}  // namespace
}  // namespace gptq::test
