// SPDX-License-Identifier: Apache-2.0
// The regular expressions that tokenizer.json is read and written with.
#pragma once
#include <string_view>

#include "text/tokenizer_file.h"

namespace gptq::convert {

constexpr std::string_view mark = "\xE2\x96\x81";  // U+2581, which stands for a space

struct SplitPattern {
  std::string_view regex;
  text::fb::Split split;
};

// The first of a kind is the one that is written.
constexpr SplitPattern split_patterns[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", text::fb::Split::gpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", text::fb::Split::gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)", text::fb::Split::llama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)", text::fb::Split::qwen2},
};

// Spaces at both ends go, runs of them become one; the last step comes after spaces were marked.
struct TrimmingStep {
  std::string_view regex, content;
};
constexpr TrimmingStep trimming_steps[] = {{R"(\A +| +\z)", ""}, {" {2,}", " "}, {"\xE2\x96\x81+\\z", ""}};

}  // namespace gptq::convert
