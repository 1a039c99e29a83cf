// SPDX-License-Identifier: Apache-2.0
#include "text/chat_template.h"

#include <algorithm>

#include "text/jinja/machine.h"
#include "text/json.h"

namespace gptq::text {
namespace {

using namespace jinja;

class EntryList {
 public:
  explicit EntryList(Heap& heap) : heap_(heap), entries_(heap.arena()) {}
  void add(std::string_view key, const Value& value) { entries_.push_back({make_string(heap_, key, true), value}); }
  void add_first(std::string_view key, const Value& value) { entries_.insert(entries_.begin(), {make_string(heap_, key, true), value}); }
  void add(const Dict& dict) { entries_.insert(entries_.end(), dict.entries, dict.entries + dict.size); }
  Value finish() {
    Entry* entries = heap_.array<Entry>(entries_.size());
    std::copy(entries_.begin(), entries_.end(), entries);
    return make_dict(heap_, entries, static_cast<uint32_t>(entries_.size()));
  }

 private:
  Heap& heap_;
  std::pmr::vector<Entry> entries_;
};

Value untrusted(Heap& heap, std::string_view text, std::string_view what) {
  if (!is_utf8(text)) base::fail(GPTQ_E_INVALID_ARGUMENT, what, " is not UTF-8");
  return make_string(heap, text, false);
}

Value read_object(Heap& heap, std::string_view json, std::string_view document) {
  const Value v = read_json(heap, json, document);
  if (!v.is(Kind::dict)) base::fail(GPTQ_E_INVALID_ARGUMENT, document, " must be a JSON object");
  return v;
}

// Reasoning goes by several names. As transformers does, a message that has one of them gets the two that templates read.
void alias_reasoning(Heap& heap, EntryList& message, const Dict& read) {
  for (const std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* reasoning = read.find(heap, name);
    if (!reasoning || reasoning->is(Kind::none)) continue;
    message.add_first("thinking", *reasoning);
    message.add("reasoning_content", *reasoning);
    return;
  }
}

Value read_message(Heap& heap, const ChatMessage& m) {
  EntryList message(heap);
  if (m.role.data()) message.add("role", untrusted(heap, m.role, "a message's role"));
  if (m.text.data()) message.add("content", untrusted(heap, m.text, "a message's text"));
  if (!m.extra_json.empty()) {
    const Value extra = read_object(heap, m.extra_json, "a message's extra_json");
    message.add(*extra.dict);
    alias_reasoning(heap, message, *extra.dict);
  }
  return message.finish();
}

Value read_messages(Heap& heap, std::span<const ChatMessage> messages) {
  ArrayBuilder out(heap);
  for (const ChatMessage& m : messages) out.add(read_message(heap, m));
  return out.finish(Kind::list);
}

Value read_tools(Heap& heap, std::string_view json) {
  if (json.empty()) return Value::none();
  const Value v = read_json(heap, json, "tools_json");
  if (!v.is(Kind::list)) base::fail(GPTQ_E_INVALID_ARGUMENT, "tools_json must be a JSON array");
  return v;
}

void set_keywords(Heap& heap, Machine& machine, std::string_view json) {
  const Value kwargs = read_object(heap, json, "kwargs_json");
  for (uint32_t i = 0; i < kwargs.dict->size; ++i) {
    const auto& [key, value] = kwargs.dict->entries[i];
    for (const std::string_view own : {"messages", "tools", "add_generation_prompt"})
      if (key.view() == own) base::fail(GPTQ_E_INVALID_ARGUMENT, "kwargs_json: '", own, "' has a field of its own");
    machine.set(key.view(), value);
    if (key.view() == "now") machine.set("strftime_now", clock_at(heap, value));
  }
}

std::pmr::vector<ChatPiece> cut(const Value& text, std::pmr::memory_resource* memory) {
  std::pmr::vector<ChatPiece> pieces(memory);
  const uint8_t *trust = text.trust(), *end = trust + text.size;
  for (const uint8_t *from = trust, *to; from != end; from = to) {
    to = std::find(from, end, !*from);
    pieces.push_back(
        {std::pmr::string(text.view().substr(static_cast<size_t>(from - trust), static_cast<size_t>(to - from)), memory), *from != 0});
  }
  return pieces;
}

}  // namespace

std::pmr::vector<ChatPiece> render_chat(std::string_view source, const ChatInput& input, std::pmr::memory_resource* memory) {
  if (source.size() > max_template_bytes)
    base::fail(GPTQ_E_TEMPLATE, "the chat template has ", source.size(), " bytes, more than ", max_template_bytes);
  if (!is_utf8(source)) base::fail(GPTQ_E_TEMPLATE, "the chat template is not UTF-8");
  Heap heap(memory);
  const Program program = compile(heap, source);
  Machine machine(heap, program);
  machine.set("messages", read_messages(heap, input.messages));
  machine.set("tools", read_tools(heap, input.tools_json));
  machine.set("documents", Value::none());
  machine.set("add_generation_prompt", Value::of_bool(input.add_generation_prompt));
  if (input.bos_token.data()) machine.set("bos_token", make_string(heap, input.bos_token, true));
  if (input.eos_token.data()) machine.set("eos_token", make_string(heap, input.eos_token, true));
  if (!input.kwargs_json.empty()) set_keywords(heap, machine, input.kwargs_json);
  return cut(machine.run(), memory);
}

}  // namespace gptq::text
