// SPDX-License-Identifier: Apache-2.0
// C API: tokens, text and chat templates.
#include <algorithm>

#include "api/guard.h"
#include "api/text.h"

namespace gptq::api {

const text::Tokenizer& tokenizer_of(const gptq_model& m) {
  if (!m.tokenizer) base::fail(GPTQ_E_TEXT, "the model has no tokenizer: give token ids instead of text");
  return *m.tokenizer;
}

std::pmr::vector<int32_t> encode(const gptq_model& m, std::string_view text, uint32_t flags) {
  if (flags & ~uint32_t(GPTQ_TEXT_ADD_BOS | GPTQ_TEXT_PARSE_SPECIAL)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown text flags ", flags);
  std::pmr::vector<int32_t> tokens(&m.runtime.memory);
  tokenizer_of(m).encode(text, {(flags & GPTQ_TEXT_ADD_BOS) != 0, (flags & GPTQ_TEXT_PARSE_SPECIAL) != 0}, tokens);
  return tokens;
}

// The model's own template: the named one, else with tools the one for tools, else the default one. NULL where there is none.
static const std::pmr::string* own_template(const gptq_model& m, std::string_view name, bool with_tools) {
  const auto named = [&](std::string_view suffix) {
    std::pmr::string key("chat_template.", &m.runtime.memory);
    return m.model->find_meta(key.append(suffix));
  };
  const std::pmr::string* tools = with_tools && name.empty() ? named("tool_use") : nullptr;
  if (tools) return tools;
  return name.empty() || name == "default" ? m.model->find_meta("chat_template") : name.size() <= 64 ? named(name) : nullptr;
}

// A model may have a template of its own for tools.
text::FoundFormat own_marks(const gptq_model& m) {
  const std::pmr::string* const plain = own_template(m, "", false);
  const std::pmr::string* const tools = own_template(m, "", true);
  if (!plain) return {{}, "the model has no chat template"};
  text::FoundFormat found = text::find_marks(*plain);
  if (tools == plain) return found;
  const text::FoundFormat with_tools = text::find_marks(*tools);
  if (with_tools.format.thinking == text::Thinking::none) found.format.calls = with_tools.format.calls;
  else found.format = with_tools.format;
  found.problem = with_tools.problem;
  return found;
}

text::FoundFormat marks_of(const gptq_model& m, std::string_view template_override) {
  const std::pmr::string* const own = own_template(m, template_override, true);
  return text::find_marks(own ? std::string_view(*own) : template_override);
}

Chat::Chat(const gptq_model& m, const gptq_chat* chat) : params(read_struct(chat, "gptq_chat")), messages(&m.runtime.memory) {
  require(params.messages || !params.n_messages, "messages is NULL");
  if (params.flags & ~uint32_t(GPTQ_CHAT_ADD_GENERATION_PROMPT | GPTQ_CHAT_DROP_OLDEST)) base::fail(GPTQ_E_INVALID_ARGUMENT, "unknown chat flags ", params.flags);
  for (size_t i = 0; i < params.n_messages; ++i) {
    require(params.messages[i], "a message is NULL");
    const gptq_message message = read_struct(params.messages[i], "gptq_message");
    messages.push_back({text_of(message.role, message.role_size, "role"), text_of(message.text, message.text_size, "text"),
                        text_of(message.extra_json, message.extra_json_size, "extra_json")});
  }
}

static std::pmr::vector<text::ChatPiece> render(const gptq_model& m, const Chat& chat, std::span<const text::ChatMessage> messages) {
  std::pmr::memory_resource* memory = &m.runtime.memory;
  const gptq_chat& c = chat.params;
  text::ChatInput input;
  input.messages = messages;
  input.tools_json = text_of(c.tools_json, c.tools_json_size, "tools_json");
  input.kwargs_json = text_of(c.kwargs_json, c.kwargs_json_size, "kwargs_json");
  input.add_generation_prompt = c.flags & GPTQ_CHAT_ADD_GENERATION_PROMPT;
  if (m.tokenizer) {
    if (m.tokenizer->bos() >= 0) input.bos_token = m.tokenizer->token_bytes(m.tokenizer->bos());
    if (m.tokenizer->eos() >= 0) input.eos_token = m.tokenizer->token_bytes(m.tokenizer->eos());
  }
  std::string_view source = text_of(c.template_override, c.template_override_size, "template_override");
  if (const std::pmr::string* own = own_template(m, source, !input.tools_json.empty())) source = *own;
  else if (source.empty()) base::fail(GPTQ_E_TEMPLATE, "the model has no chat template; give one as template_override");
  return text::render_chat(source, input, memory);
}

std::pmr::vector<int32_t> encode_chat(const gptq_model& m, const Chat& chat, std::span<const text::ChatMessage> messages) {
  std::pmr::memory_resource* memory = &m.runtime.memory;
  std::pmr::string text(memory);  // encoded as a whole, since merges and pre-tokens cross from the template's text into the messages'
  std::pmr::vector<text::ByteRange> plain(memory);
  for (const text::ChatPiece& piece : render(m, chat, messages)) {
    if (!piece.trusted) plain.push_back({text.size(), text.size() + piece.text.size()});
    text += piece.text;
  }
  std::pmr::vector<int32_t> tokens(memory);
  tokenizer_of(m).encode(text, {false, true, plain}, tokens);
  return tokens;
}

}  // namespace gptq::api

using namespace gptq;
using namespace gptq::api;

gptq_status GPTQ_CALL gptq_tokenize(const gptq_model* m, const char* text, size_t size, uint32_t flags, gptq_token* out, size_t cap, size_t* needed) {
  return guard_logged(m, [&] {
    require(m && needed, "m and needed must not be NULL");
    const auto tokens = encode(*m, text_of(text, size, "text"), flags);
    return copy_out(tokens.data(), tokens.size(), out, cap, needed);
  });
}

gptq_status GPTQ_CALL gptq_detokenize(const gptq_model* m, const gptq_token* tokens, size_t n, uint32_t flags, char* out, size_t cap, size_t* needed) {
  return guard_logged(m, [&] {
    require(m && needed && (tokens || !n), "m, tokens and needed must not be NULL");
    const text::Tokenizer& tokenizer = tokenizer_of(*m);
    std::pmr::string text(&m->runtime.memory);
    for (size_t i = 0; i < n; ++i) {
      if (tokens[i] < 0 || static_cast<uint32_t>(tokens[i]) >= m->model->spec.n_vocab)
        base::fail(GPTQ_E_INVALID_ARGUMENT, "token ", tokens[i], " is outside the vocabulary of ", m->model->spec.n_vocab);
      const bool special = tokenizer.attributes(tokens[i]) & GPTQ_TOKEN_SPECIAL;
      if (special && !(flags & GPTQ_TEXT_RENDER_SPECIAL)) continue;
      std::string_view bytes = tokenizer.token_bytes(tokens[i]);
      if (text.empty() && !special && tokenizer.strips_leading_space() && bytes.starts_with(' ')) bytes.remove_prefix(1);
      text += bytes;
    }
    return copy_out(text.data(), text.size(), out, cap, needed);
  });
}

gptq_status GPTQ_CALL gptq_token_bytes(const gptq_model* m, gptq_token token, const char** bytes, size_t* size, uint32_t* attr) {
  return guard_logged(m, [&] {
    require(m && bytes && size, "m, bytes and size must not be NULL");
    require(token >= 0 && static_cast<uint32_t>(token) < m->model->spec.n_vocab, "the token is outside the vocabulary");
    const text::Tokenizer& tokenizer = tokenizer_of(*m);
    const std::string_view text = tokenizer.token_bytes(token);
    *bytes = text.data();
    *size = text.size();
    const auto& ends = m->model->generation.end_tokens;
    const bool is_end = std::find(ends.begin(), ends.end(), token) != ends.end();
    if (attr) *attr = tokenizer.attributes(token) | (is_end ? GPTQ_TOKEN_END : 0);
    return GPTQ_OK;
  });
}

gptq_status GPTQ_CALL gptq_chat_render(const gptq_model* m, const gptq_chat* chat, char* out, size_t cap, size_t* needed, gptq_error* err) {
  return guard(err, [&] {
    require(m && chat && needed, "m, chat and needed must not be NULL");
    std::pmr::string text(&m->runtime.memory);
    const Chat read(*m, chat);
    for (const text::ChatPiece& piece : render(*m, read, read.messages)) text += piece.text;
    return copy_out(text.data(), text.size(), out, cap, needed);
  });
}
