// SPDX-License-Identifier: Apache-2.0
// Validation of UTF-8 and its repair.
#include "text/utf8.h"

#include <cstring>

namespace gptq::text {

Sequence sequence_at(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return {1, true};
  if (first < 0xC2 || first > 0xF4) return {1, false};
  const uint32_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  unsigned low = 0x80, high = 0xBF;  // of the second byte
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  for (uint32_t i = 1; i < length; ++i) {
    if (i == text.size() || byte(i) < low || byte(i) > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

size_t valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t word;
    if (at + sizeof word <= text.size()) {
      std::memcpy(&word, text.data() + at, sizeof word);
      if (!(word & 0x8080808080808080u)) {
        at += sizeof word;
        continue;
      }
    }
    const Sequence sequence = sequence_at(text.substr(at));
    if (!sequence.valid) return at;
    at += sequence.bytes;
  }
  return at;
}

void append_repaired(std::string_view text, std::pmr::string& out) {
  while (!text.empty()) {
    const size_t good = valid_prefix(text);
    out.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) return;
    out.append("\xEF\xBF\xBD");
    text.remove_prefix(sequence_at(text).bytes);
  }
}

bool may_become_valid(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const uint32_t whole = first > 0xF4 || first < 0xC2 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  return sequence_at(text).bytes == text.size() && text.size() < whole;
}

uint32_t write_utf8(uint32_t code, char (&out)[4]) {
  uint32_t n = 0;
  const auto put = [&](uint32_t byte) { out[n++] = static_cast<char>(byte); };
  if (code < 0x80) return put(code), n;
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
  return n;
}

void append_utf8(uint32_t code, std::pmr::string& out) {
  char bytes[4];
  out.append(bytes, write_utf8(code, bytes));
}

}  // namespace gptq::text
