// SPDX-License-Identifier: Apache-2.0
#include "converter/tokenizer/patterns.h"

#include "base/failure.h"
#include "converter/tokenizer/byte_alphabet.h"
#include "converter/tokenizer/json_fields.h"
#include "text/utf8.h"

namespace gptq::convert {
namespace {

using text::fb::Behavior;

[[noreturn]] void refuse(std::string_view what, std::string_view name) {
  base::fail(GPTQ_E_UNSUPPORTED, "tokenizer.json: pre-tokenizer ", what, " ", name);
}

Behavior behavior_of(Json step, std::string_view absent) {
  constexpr std::string_view names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  const std::string_view name = string_field(step, "behavior", absent);
  for (size_t i = 0; i < std::size(names); ++i)
    if (names[i] == name) return static_cast<Behavior>(i);
  refuse("with behavior", name);
}

struct Step {
  regex::Node node;
  Behavior behavior;
  bool invert = false;
};

regex::Node one_of(regex::Set set) { return {.kind = regex::Node::one, .set = std::move(set)}; }

// \w+|[^\w\s]+, where \w is not quite Oniguruma's.
regex::Node words() {
  const auto run = [](regex::Set set) {
    return regex::Node{.kind = regex::Node::repeat, .parts = {one_of(std::move(set))}, .min = 1, .max = UINT32_MAX};
  };
  regex::Set either = regex::word_set();
  either.add(regex::space_set());
  return {.kind = regex::Node::choice, .parts = {run(regex::word_set()), run(either.inverted())}};
}

regex::Node split_node(Json step) {
  const auto pattern = field(step, "pattern");
  if (!pattern) refuse("Split", "without a pattern");
  if (field(*pattern, "Regex")) return regex::parse(string_field(*pattern, "Regex"));
  const std::string_view text = string_field(*pattern, "String");
  if (text.empty()) refuse("Split", "with an empty pattern");
  return regex::literal(text);
}

Step read_step(Json step) {
  const std::string_view type = string_field(step, "type");
  if (type == "Split") return {split_node(step), behavior_of(step, "Isolated"), bool_field(step, "invert")};
  if (type == "Punctuation") return {one_of(regex::punctuation_set()), behavior_of(step, "Isolated")};
  if (type == "Digits")
    return {one_of(regex::digits_set()), bool_field(step, "individual_digits") ? Behavior::isolated : Behavior::contiguous};
  if (type == "WhitespaceSplit") return {one_of(regex::space_set()), Behavior::removed};
  if (type == "Whitespace") return {words(), Behavior::removed, true};
  if (type == "CharDelimiterSplit") return {regex::literal(string_field(step, "delimiter")), Behavior::removed};
  refuse(type, "");
}

// The runtime has a space where the step's pattern looks for U+2581.
void see_marks(regex::Node& node) {
  const bool contained = node.set.contains(0x2581);
  node.set = node.set.without({' ', ' '});
  if (contained) node.set.add({' ', ' '});
  for (regex::Node& part : node.parts) see_marks(part);
}

}  // namespace

CompiledPatterns compile_patterns(const std::vector<PatternStep>& steps) {
  CompiledPatterns out;
  std::vector<Step> read;
  std::vector<const regex::Node*> nodes;
  bool over_bytes = false;
  for (const PatternStep& step : steps) {
    const JsonDocument document("tokenizer.json", "{\"step\": " + step.source + "}");
    read.push_back(read_step(document.root().find("step").value()));
    if (step.sight == text::fb::Sight::marks) see_marks(read.back().node);
    over_bytes |= step.sight == text::fb::Sight::bytes;
  }
  if (read.empty()) return out;
  for (const Step& step : read) nodes.push_back(&step.node);
  out.classes = regex::classify(nodes);
  for (const Step& step : read) out.patterns.push_back({regex::compile(step.node, out.classes), step.behavior, step.invert});
  for (unsigned byte = 0; over_bytes && byte < 256; ++byte)
    out.byte_classes.push_back(out.classes.of(text::character_at(text_of_bytes(std::string(1, static_cast<char>(byte))).c_str()).code));
  return out;
}

}  // namespace gptq::convert
