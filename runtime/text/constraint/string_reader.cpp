// SPDX-License-Identifier: Apache-2.0
#include "text/constraint/string_reader.h"

#include <algorithm>
#include <string_view>

#include "text/constraint/nfa.h"

namespace gptq::text::constraint {

namespace {

// Control characters that have a letter.
bool is_lettered(uint32_t code) { return code == '\b' || code == '\f' || code == '\n' || code == '\r' || code == '\t'; }

}  // namespace

bool StringReader::is_needful(uint8_t byte) const {
  const uint32_t state = escape & 0xFF, value = escape >> 8;
  if (state == 1) return byte != '/';
  if (state == 2 || state == 3) return byte == '0';
  if (state == 4) return byte == '0' || byte == '1';
  if (state != 5) return true;
  return byte <= '9' ? !is_lettered(value << 4 | (byte - '0')) : byte >= 'a' && !is_lettered(value << 4 | (byte - 'a' + 10u));
}

bool StringReader::can_need(uint32_t code) const {
  const bool any = (escape & 0xFF) == 1;
  return code < 0x20 ? any || !is_lettered(code) : any && (code == '"' || code == '\\');
}

std::pair<uint32_t, uint32_t> StringReader::range() const {
  const uint32_t state = escape & 0xFF, value = escape >> 8;
  if (state < 2) return {0, code_point_max};
  if (state <= 5) {
    const uint32_t open = 4 * (6 - state), low = value << open, high = low + (1u << open) - 1;
    const auto pair = [](uint32_t half) { return 0x10000 + ((half - 0xD800) << 10); };  // the first one that half a pair may stand for
    if (low >= 0xD800 && high <= 0xDBFF) return {pair(low), pair(high + 1) - 1};
    return {low, low <= 0xDBFF && high >= 0xD800 ? code_point_max : high};
  }
  // Of the second half state - 8 digits are there.
  const uint32_t n = state <= 8 ? 0 : state - 8, half = value >> (4 * n), open = 4 * (4 - n);
  const uint32_t low = n ? (value & ((1u << 4 * n) - 1)) << open : 0xDC00, high = n ? low + (1u << open) - 1 : 0xDFFF;
  const uint32_t first = 0x10000 + (half << 10) - 0xDC00;
  return {first + std::max(low, 0xDC00u), first + high};
}

uint32_t StringReader::behind_halves(uint32_t code) const {
  if (code < 0xD800 || code > 0xFFFF) return code;
  if (escape == (3 | 0xD << 8)) return 0x10000;
  return std::max(code, 0xE000u);
}

StringReader::Result StringReader::hex(uint8_t byte) {
  const uint8_t lower = byte | 0x20;
  const uint32_t digit = byte >= '0' && byte <= '9' ? byte - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10u : 99;
  if (digit == 99) return wrong;
  const uint32_t state = escape & 0xFF, value = (escape >> 8) << 4 | digit;
  // Half a pair stands only before its other half.
  if ((state == 3 && value >= 0xDC && value <= 0xDF) || (state == 8 && digit != 0xD) || (state == 9 && digit < 0xC)) return wrong;
  if (state != 5 && state != 11) {
    escape = (state + 1) | value << 8;
    return goes_on;
  }
  escape = 0;
  if (state == 5) {
    if (value >= 0xD800 && value <= 0xDBFF) escape = 6 | (value - 0xD800) << 8;
    else put(value);
    return goes_on;
  }
  // The high half's 10 bits are above the low one's 16.
  const uint32_t low = value & 0xFFFF, high = value >> 16;
  put(0x10000 + (high << 10) + (low - 0xDC00));
  return goes_on;
}

void StringReader::put(uint32_t code) {
  character = true;
  if (code < 0x80) {
    bytes[n++] = static_cast<uint8_t>(code);
    return;
  }
  const unsigned tails = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr uint8_t lead[] = {0, 0xC0, 0xE0, 0xF0};
  bytes[n++] = static_cast<uint8_t>(lead[tails] | code >> (6 * tails));
  for (unsigned i = tails; i-- > 0;) bytes[n++] = static_cast<uint8_t>(0x80 | (code >> (6 * i) & 0x3F));
}

// escape: 1 behind a backslash, 2 to 5 a code's digits, 6 a backslash wanted, 7 its u, 8 to 11 the second code's digits; from bit 8 what
// they gave. utf8: 1 to 3 bytes wanted, 4 to 7 after E0, ED, F0, F4.
StringReader::Result StringReader::take(uint8_t byte) {
  if (const uint32_t state = escape & 0xFF) {
    if (state == 1) {
      escape = byte == 'u' ? 2 : 0;
      constexpr std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      const size_t which = from.find(static_cast<char>(byte));
      if (byte != 'u' && which == std::string_view::npos) return wrong;
      if (byte != 'u') put(static_cast<uint8_t>(to[which]));
      return goes_on;
    }
    if (state == 6 || state == 7) {
      if (byte != (state == 6 ? '\\' : 'u')) return wrong;
      ++escape;
      return goes_on;
    }
    return hex(byte);
  }
  bytes[n++] = byte;
  if (utf8) {
    const bool fits = utf8 == 4   ? byte >= 0xA0 && byte <= 0xBF
                      : utf8 == 5 ? byte >= 0x80 && byte <= 0x9F
                      : utf8 == 6 ? byte >= 0x90 && byte <= 0xBF
                      : utf8 == 7 ? byte >= 0x80 && byte <= 0x8F
                                  : byte >= 0x80 && byte <= 0xBF;
    if (!fits) return wrong;
    utf8 = utf8 <= 3 ? utf8 - 1 : utf8 <= 5 ? 1 : 2;
    character = utf8 == 0;
    return goes_on;
  }
  if (byte < 0x20) return wrong;
  if (byte == '"') return closes;
  if (byte == '\\') {
    n = 0;
    escape = 1;
    return goes_on;
  }
  if (byte < 0x80) {
    character = true;
    return goes_on;
  }
  if (byte < 0xC2 || byte > 0xF4) return wrong;
  utf8 = byte < 0xE0 ? 1 : byte == 0xE0 ? 4 : byte == 0xED ? 5 : byte < 0xF0 ? 2 : byte == 0xF0 ? 6 : byte == 0xF4 ? 7 : 3;
  return goes_on;
}

}  // namespace gptq::text::constraint
