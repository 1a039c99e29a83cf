// SPDX-License-Identifier: Apache-2.0
// Regular expressions as Hugging Face's tokenizers write them (Oniguruma's syntax), read into a tree.
#pragma once
#include <string_view>
#include <vector>

#include "converter/tokenizer/regex/set.h"

namespace gptq::convert::regex {

struct Node {
  enum Kind {
    sequence,  // of parts; none: the empty text
    choice,    // of parts, the first that leads to a match
    repeat,    // parts[0], min to max times
    one,       // a character of set
    ahead,     // the next character is of set; edge: or there is none
    behind,    // the character before is of set; edge: or there is none
  };
  Kind kind = sequence;
  Set set{};
  bool edge = false;
  std::vector<Node> parts{};
  uint32_t min = 0, max = 0;  // max: UINT32_MAX = no limit
  bool lazy = false;
};

// Fails with UNSUPPORTED and the part that a table cannot say: back references, looking at more than one character, and the like.
Node parse(std::string_view pattern);
// A text as it stands.
Node literal(std::string_view text);

}  // namespace gptq::convert::regex
