// SPDX-License-Identifier: Apache-2.0
// Chat templates: the subset of Jinja that model makers use, with bounded work, and text of the user kept apart from template text.
#pragma once
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::text {

// role or text without data (a NULL pointer) is left out of the message, so that extra_json may hold all of it.
struct ChatMessage {
  std::string_view role, text;
  std::string_view extra_json;  // an object merged into the message, or ""
};

// The template sees what transformers' apply_chat_template shows it. strftime_now is defined only where kwargs_json holds `now`:
// the time to show, in seconds since 1970; the library has no clock.
struct ChatInput {
  std::span<const ChatMessage> messages;
  std::string_view tools_json, kwargs_json;  // an array / an object, or ""
  bool add_generation_prompt = false;
  std::string_view bos_token, eos_token;     // undefined where they have no data
};

// The result: pieces in order. A piece from the template itself may hold special tokens; one that came from a message, a tool or
// a keyword argument must be tokenized as plain text.
struct ChatPiece {
  std::pmr::string text;
  bool trusted;
};

// Fails with TEMPLATE and the byte offset in the template: syntax outside the subset, raise_exception, too much work or output.
// Input that is no JSON or no UTF-8: INVALID_ARGUMENT, with the offset in that JSON.
std::pmr::vector<ChatPiece> render_chat(std::string_view source, const ChatInput& input, std::pmr::memory_resource* memory);

}  // namespace gptq::text
