// SPDX-License-Identifier: Apache-2.0
// What the text and session calls share.
#pragma once
#include "api/handles.h"
#include "text/chat_template.h"
#include "text/marks.h"

namespace gptq::api {

const text::Tokenizer& tokenizer_of(const gptq_model& m);  // fails with TEXT where there is none
std::pmr::vector<int32_t> encode(const gptq_model& m, std::string_view text, uint32_t flags);
// A host's conversation; the texts stay the host's.
struct Chat {
  Chat(const gptq_model& m, const gptq_chat* chat);
  gptq_chat params;
  std::pmr::vector<text::ChatMessage> messages;
};
// How the model's own template has tool calls and thinking written, or the host's of a conversation.
text::FoundFormat own_marks(const gptq_model& m);
text::FoundFormat marks_of(const gptq_model& m, std::string_view template_override);
// The tokens of some of its messages; special tokens count only where the template wrote them.
std::pmr::vector<int32_t> encode_chat(const gptq_model& m, const Chat& chat, std::span<const text::ChatMessage> messages);

}  // namespace gptq::api
