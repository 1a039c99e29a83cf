// SPDX-License-Identifier: Apache-2.0
// What a model writes beside its answer, thinking and tool calls, and the marks that stand around them. Its chat
// template shows which.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace gptq::text {

enum class Thinking : uint8_t {
  none,
  angle,
  bracket,
  seed
};  // <think> and </think>; [THINK] and [/THINK]; <seed:think> and </seed:think>

enum class Calls : uint8_t {
  none,
  tagged,    // <tool_call>{"name": ..., "arguments": {...}}</tool_call>: Qwen, Hermes, Granite
  listed,    // <tool_calls>[{...}, ...]</tool_calls>: Apriel
  llama,     // {"name": ..., "parameters": {...}} as the whole answer, or behind <|python_tag|>
  mistral,   // [TOOL_CALLS] and a list, or name[ARGS]{...}, or name[CALL_ID]id[ARGS]{...}
  deepseek,  // sections, in them the name, and JSON that may be fenced
  kimi,      // sections, in them functions.name:0, and JSON
  function,  // <function=name>{...}</function>: Functionary
  // Arguments as elements, not as JSON.
  elements,  // <tool_call><function=name><parameter=key>value</parameter></function></tool_call>: Qwen 3.5 and Coder,
             // Nemotron 3
  seed,      // the same with <seed:tool_call>
  params,    // <function name="name"><param name="key">value</param></function>: MiniCPM 5
  pairs,     // <tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>: GLM
};
constexpr bool has_elements(Calls calls) { return calls >= Calls::elements; }

// All of the marks that the formats have between them.
enum class Mark : uint8_t {
  think,
  think_end,
  section,
  section_end,
  call,
  call_end,
  arguments,
  id,
  fence,
  fence_end,
  key,
  key_end,
  value,
  value_end
};
constexpr size_t n_marks = 14;
constexpr size_t mark_bytes_max = 40;

struct MarkFormat {
  Thinking thinking = Thinking::none;
  Calls calls = Calls::none;
  bool operator==(const MarkFormat&) const = default;
  bool any() const { return thinking != Thinking::none || calls != Calls::none; }
  // As it is written, "" where this format has no such mark.
  std::string_view mark(Mark which) const { return marks()[static_cast<size_t>(which)]; }
  // A mark that the text may have.
  bool has(std::string_view text) const;

  // For saves.
  uint32_t code() const { return static_cast<uint32_t>(thinking) | static_cast<uint32_t>(calls) << 8; }
  // False where that is the code of no format.
  bool set_code(uint32_t code);

 private:
  std::array<std::string_view, n_marks> marks() const;
};

struct FoundFormat {
  MarkFormat format;
  const char* problem = nullptr;  // why it is not known
};
// source: a chat template.
FoundFormat find_marks(std::string_view source);

}  // namespace gptq::text
