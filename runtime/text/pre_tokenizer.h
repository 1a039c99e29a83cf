// SPDX-License-Identifier: Apache-2.0
// Cutting text into the pieces that merges stay within: the splitting patterns of the model families, as hand-written scanners.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>

#include "text/pattern.h"

namespace gptq::text {

// The length of the first piece of text, which is valid UTF-8 and not empty.
using Scanner = size_t (*)(std::string_view text);
// NULL for those that are no scanner: pattern and space_first.
Scanner scanner(fb::Split split);

struct Splitter {
  Scanner scan = nullptr;
  Pattern pattern;
  bool space_first = false;
};

// Calls use(piece) for every piece, each splitter working within the pieces of the one before. At most a handful of them.
template <class Use>
void for_each_piece(std::span<const Splitter> splitters, std::string_view text, std::pmr::memory_resource* memory, const Use& use) {
  if (splitters.empty()) {
    if (!text.empty()) use(text);
    return;
  }
  const Splitter& first = splitters[0];
  const auto rest = splitters.subspan(1);
  const auto pass_on = [&](std::string_view piece) {
    if (rest.empty()) use(piece);
    else for_each_piece(rest, piece, memory, use);
  };
  if (first.space_first) {
    if (text.empty() || text[0] == ' ') return pass_on(text);
    std::pmr::string spaced(" ", memory);
    spaced += text;
    return pass_on(spaced);
  }
  if (!first.scan) return first.pattern.split(text, pass_on);
  while (!text.empty()) {
    const size_t length = first.scan(text);
    pass_on(text.substr(0, length));
    text.remove_prefix(length);
  }
}

}  // namespace gptq::text
