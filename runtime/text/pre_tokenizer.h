// SPDX-License-Identifier: Apache-2.0
// Cutting text into the pieces that merges stay within: the splitting patterns of the model families, as hand-written scanners.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "tokenizer_generated.h"

namespace gptq::text {

// The length of the first piece of text, which is valid UTF-8 and not empty.
using Scanner = size_t (*)(std::string_view text);
Scanner scanner(fb::Split split);

// Calls use(piece) for every piece, each split working within the pieces of the one before. At most a handful of splits.
template <class Use>
void for_each_piece(std::span<const Scanner> splits, std::string_view text, const Use& use) {
  if (splits.empty()) {
    if (!text.empty()) use(text);
    return;
  }
  while (!text.empty()) {
    const size_t length = splits[0](text);
    if (splits.size() == 1) use(text.substr(0, length));
    else for_each_piece(splits.subspan(1), text.substr(0, length), use);
    text.remove_prefix(length);
  }
}

}  // namespace gptq::text
