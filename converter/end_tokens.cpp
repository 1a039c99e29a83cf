// SPDX-License-Identifier: Apache-2.0
#include "converter/end_tokens.h"

#include <algorithm>
#include <iterator>

#include "converter/tokenizer/description.h"

namespace gptq::convert {
namespace {

constexpr std::string_view known_ends[] = {
    "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>",
    "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|eot|>", "<|eom|>", "<EOT>", "[EOS]", "[EOT]", "</s>", "<eos>",
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>", "<end_of_utterance>", "[|endofturn|]", "<turn|>"};

bool has_added(const TokenizerDescription& t, std::string_view text) {
  return std::any_of(t.added.begin(), t.added.end(), [&](const auto& added) { return added.text == text; });
}

}  // namespace

void EndTokens::add(int32_t id, std::string_view why) {
  if (id < 0 || static_cast<uint32_t>(id) >= n_vocab_ || std::find(ids_.begin(), ids_.end(), id) != ids_.end()) return;
  ids_.push_back(id);
  reasons_.append(reasons_.empty() ? "" : "; ").append(std::to_string(id)).append(" ").append(why);
}

void EndTokens::add(const TokenizerDescription& t) {
  add(t.eos.id, "the tokenizer's eos " + t.eos.text);
  // Where there is a <|return|>, <|end|> ends one message of several.
  const bool returns = has_added(t, "<|return|>");
  for (const auto& added : t.added) {
    if (!t.tokens[added.id].special || (returns && added.text == "<|end|>")) continue;
    if (std::find(std::begin(known_ends), std::end(known_ends), added.text) == std::end(known_ends)) continue;
    add(static_cast<int32_t>(added.id), "known as an end: " + added.text);
  }
}

}  // namespace gptq::convert
