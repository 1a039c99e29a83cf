// SPDX-License-Identifier: Apache-2.0
// The alphabet: printable Latin-1 stands for itself, the other bytes in order for U+0100 and up.
#include "converter/tokenizer/byte_alphabet.h"

#include <algorithm>
#include <array>

#include "text/utf8.h"

namespace gptq::convert {
namespace {

constexpr std::array<int, 0x144> byte_of = [] {
  std::array<int, 0x144> table{};
  table.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[printable ? byte : next++] = byte;
  }
  return table;
}();

}  // namespace

std::optional<std::string> bytes_of(std::string_view text) {
  std::string bytes;
  if (text::valid_prefix(text) != text.size()) return {};
  while (!text.empty()) {
    const text::Character c = text::character_at(text.data());
    if (c.code >= byte_of.size() || byte_of[c.code] < 0) return {};
    bytes.push_back(static_cast<char>(byte_of[c.code]));
    text.remove_prefix(c.bytes);
  }
  return bytes;
}

std::string text_of_bytes(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const auto code = static_cast<uint32_t>(std::find(byte_of.begin(), byte_of.end(), static_cast<unsigned char>(byte)) - byte_of.begin());
    if (code < 0x80) text.push_back(static_cast<char>(code));
    else text += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  }
  return text;
}

}  // namespace gptq::convert
