// SPDX-License-Identifier: Apache-2.0
// Regular expressions as tables: one look-up a character, no way back.
#pragma once
#include <cstdint>
#include <vector>

#include "converter/tokenizer/regex/syntax.h"

namespace gptq::convert::regex {

// Characters that no set of any pattern tells apart are of one class.
struct Classes {
  std::vector<Set> sets;         // those that were told apart
  std::vector<uint16_t> index;   // block of a character >> 7; those behind the last are of class 0
  std::vector<uint8_t> blocks;   // class of each of a block's 128 characters
  uint32_t n = 1;
  std::vector<uint8_t> in_set;   // [set][class]

  uint8_t of(uint32_t code) const { return code >> 7 < index.size() ? blocks[index[code >> 7] * 128u + code % 128] : 0; }
};

Classes classify(const std::vector<const Node*>& patterns);

// A row of next a state: a number a class, the last for the text's end. Bit 15: a match ends before this character. State 0: no more.
struct Automaton {
  std::vector<uint16_t> next, start;  // start: by the class of the character before, the last for none; one alone: it does not matter
};

// Leftmost alternatives first, as backtracking finds them. Fails with UNSUPPORTED where the table would be too large.
Automaton compile(const Node& pattern, const Classes& classes);

}  // namespace gptq::convert::regex
