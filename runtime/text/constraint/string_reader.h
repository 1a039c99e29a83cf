// SPDX-License-Identifier: Apache-2.0
// The text of JSON's strings, byte by byte: escapes undone, UTF-8 checked.
#pragma once
#include <cstdint>
#include <utility>

namespace gptq::text::constraint {

struct StringReader {
  uint32_t escape, utf8;
  uint8_t bytes[4];
  uint32_t n = 0;          // bytes that came out
  bool character = false;  // one is complete
  enum Result { goes_on, closes, wrong };
  Result take(uint8_t byte);
  Result hex(uint8_t byte);
  void put(uint32_t code);
  // Whether the escape in progress may go on so where only characters that need one are escaped, the shortest way; and what it can be then.
  bool is_needful(uint8_t byte) const;
  bool can_need(uint32_t code) const;
  // The characters that the escape in progress can still be, but for those that behind_halves passes over: the code, or the next that is one.
  std::pair<uint32_t, uint32_t> range() const;
  uint32_t behind_halves(uint32_t code) const;
};

}  // namespace gptq::text::constraint
