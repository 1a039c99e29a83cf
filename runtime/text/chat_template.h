// SPDX-License-Identifier: Apache-2.0
// Chat templates: the subset of Jinja that model makers use, with bounded work, and text of the user kept apart from template text.
#pragma once
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::text {

struct ChatMessage {
  std::string_view role, text;
  std::string_view extra_json;  // an object merged into the message, or ""
};

struct ChatInput {
  std::span<const ChatMessage> messages;
  std::string_view tools_json, kwargs_json;  // an array / an object, or ""
  bool add_generation_prompt = false;
  std::string_view bos_token, eos_token;
};

// The result: pieces in order. A piece from the template itself may hold special tokens; one that came from a message, a tool or
// a keyword argument must be tokenized as plain text.
struct ChatPiece {
  std::pmr::string text;
  bool trusted;
};

// Fails with TEMPLATE and the byte offset in the template: syntax outside the subset, raise_exception, too much work or output.
std::pmr::vector<ChatPiece> render_chat(std::string_view source, const ChatInput& input, std::pmr::memory_resource* memory);

}  // namespace gptq::text
