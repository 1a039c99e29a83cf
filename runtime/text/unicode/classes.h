// SPDX-License-Identifier: Apache-2.0
// What kind of character something is.
#pragma once
#include "text/unicode/tables.h"

namespace gptq::text::unicode {

enum class Kind : uint8_t { other, letter, number, space };

inline unsigned class_bits(uint32_t code) {
  if (code >= class_limit) return 0;
  const uint32_t at = class_index[code / 128] * 128u + code % 128;
  return static_cast<unsigned>(class_blocks[at / 16] >> (at % 16 * 4)) & 15;
}

inline Kind kind(uint32_t code) { return static_cast<Kind>(class_bits(code) & 3); }

// Whether text that holds only characters without this property is in NFC.
inline bool may_change_in_nfc(uint32_t code) { return class_bits(code) & 4; }

}  // namespace gptq::text::unicode
