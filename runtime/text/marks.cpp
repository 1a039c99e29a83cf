// SPDX-License-Identifier: Apache-2.0
#include "text/marks.h"

#include <algorithm>

namespace gptq::text {
namespace {

using Marks = std::array<std::string_view, n_marks>;

// In the order of Mark, without thinking.
constexpr Marks of_calls[] = {
    {},
    {"", "", "", "", "<tool_call>", "</tool_call>"},
    {"", "", "", "", "<tool_calls>", "</tool_calls>"},
    {"", "", "", "", "<|python_tag|>"},
    {"", "", "", "", "[TOOL_CALLS]", "", "[ARGS]", "[CALL_ID]"},
    {"", "", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "", "```json", "```"},
    {"", "", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>"},
    {"", "", "", "", "<function=", "</function>", ">"},
    {"", "", "<tool_call>", "</tool_call>", "<function=", "</function>", ">", "", "", "", "<parameter=", ">", "", "</parameter>"},
    {"", "", "<seed:tool_call>", "</seed:tool_call>", "<function=", "</function>", ">", "", "", "", "<parameter=", ">", "", "</parameter>"},
    {"", "", "", "", "<function name=\"", "</function>", "\">", "", "", "", "<param name=\"", "\">", "", "</param>"},
    {"", "", "", "", "<tool_call>", "</tool_call>", "", "", "", "", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"},
};

}  // namespace

std::array<std::string_view, n_marks> MarkFormat::marks() const {
  Marks marks = of_calls[static_cast<size_t>(calls)];
  if (thinking == Thinking::angle) marks[0] = "<think>", marks[1] = "</think>";
  if (thinking == Thinking::bracket) marks[0] = "[THINK]", marks[1] = "[/THINK]";
  if (thinking == Thinking::seed) marks[0] = "<seed:think>", marks[1] = "</seed:think>";
  return marks;
}

bool MarkFormat::has(std::string_view text) const {
  const Marks all = marks();
  return !text.empty() && std::find(all.begin(), all.end(), text) != all.end();
}

bool MarkFormat::set_code(uint32_t code) {
  const uint32_t thought = code & 0xFF, called = code >> 8;
  if (thought > static_cast<uint32_t>(Thinking::seed) || called >= std::size(of_calls)) return false;
  *this = {static_cast<Thinking>(thought), static_cast<Calls>(called)};
  return true;
}

FoundFormat find_marks(std::string_view source) {
  const auto has = [&](std::string_view what) { return source.find(what) != std::string_view::npos; };
  FoundFormat found;
  MarkFormat& format = found.format;
  if (has("<seed:think>")) format.thinking = Thinking::seed;
  else if (has("[/THINK]")) format.thinking = Thinking::bracket;
  else if (has("</think>") || has("<think>")) format.thinking = Thinking::angle;

  const bool object = has("\"arguments\"") || has("'arguments'");
  if (has("<function=") && has("<parameter=")) format.calls = has("<seed:tool_call>") ? Calls::seed : Calls::elements;
  else if (has("<tool_call>") && has("<arg_key>")) format.calls = Calls::pairs;
  else if (has("<function name=\"") && has("<param name=\"")) format.calls = Calls::params;
  else if (has("<function=") && has("</function>")) format.calls = Calls::function;
  else if (has("<tool_call>") && object) format.calls = Calls::tagged;
  else if (has("<tool_calls>") && has("</tool_calls>") && object) format.calls = Calls::listed;
  else if (has("[TOOL_CALLS]")) format.calls = Calls::mistral;
  else if (has("<｜tool▁call▁begin｜>")) format.calls = Calls::deepseek;
  else if (has("<|tool_call_begin|>") && has("<|tool_call_argument_begin|>")) format.calls = Calls::kimi;
  else if (has("<|start_header_id|>") && has("{\"name\": \"") && has("\"parameters\": ")) format.calls = Calls::llama;
  else if (has("tool_calls") || has("tools")) found.problem = "it has tools, but how it writes their calls is not known";
  else if (!format.any()) found.problem = "it has neither tool calls nor thinking";
  return found;
}

}  // namespace gptq::text
