// SPDX-License-Identifier: Apache-2.0
// Two bytes of length, a template of that length, then JSON that serves as message, tools and keyword arguments.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/failure.h"
#include "tests/fuzz/target.h"
#include "text/chat_template.h"

namespace {

void render(std::string_view source, const gptq::text::ChatInput& input) {
  try {
    size_t size = 0;
    for (const auto& piece : gptq::text::render_chat(source, input, std::pmr::new_delete_resource())) size += piece.text.size();
    if (size > 16 * 1024 * 1024) std::abort();
  } catch (const gptq::base::Failure& failure) {
    const gptq_status status = failure.detail.status;
    if (status != GPTQ_E_TEMPLATE && status != GPTQ_E_INVALID_ARGUMENT) std::abort();
  }
}

}  // namespace

FUZZ_TARGET(chat_template) {
  if (size < 2) return;
  const std::string_view all(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t cut = std::min<size_t>(all.size(), data[0] | data[1] << 8);
  const std::string_view source = all.substr(0, cut), json = all.substr(cut);
  const gptq::text::ChatMessage messages[] = {{"system", "Be <b>brief</b>.", ""}, {"user", json, ""}, {"assistant", "an\u00e4 swer\n", ""}};
  gptq::text::ChatInput input;
  input.messages = messages;
  input.bos_token = "<s>";
  input.add_generation_prompt = true;
  render(source, input);
  input.kwargs_json = json;
  render(source, input);
  input.kwargs_json = {};
  input.tools_json = json;
  render(source, input);
}
