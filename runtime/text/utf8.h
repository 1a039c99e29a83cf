// SPDX-License-Identifier: Apache-2.0
// UTF-8: reading characters of text that is known to be valid, and making it so.
#pragma once
#include <cstdint>
#include <memory_resource>
#include <memory_resource>
#include <string>
#include <string_view>

namespace gptq::text {

struct Character {
  uint32_t code;
  uint32_t bytes;
};

// p points into valid UTF-8.
inline Character character_at(const char* p) {
  const auto byte = [p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

// Where the last character of valid, non-empty text begins.
inline size_t last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

struct Sequence {
  uint32_t bytes;  // how many belong together
  bool valid;
};

// The character at the start of non-empty text, or the longest part of one (Unicode's table of well-formed sequences).
Sequence sequence_at(std::string_view text);

// How many bytes at the start of text are valid UTF-8.
size_t valid_prefix(std::string_view text);

// Appends text with each maximal invalid part as U+FFFD.
void append_repaired(std::string_view text, std::pmr::string& out);

// Whether these bytes, of which sequence_at says that they are none, can still become a character.
bool may_become_valid(std::string_view text);

// Returns how many bytes it is.
uint32_t write_utf8(uint32_t code, char (&out)[4]);
void append_utf8(uint32_t code, std::pmr::string& out);

}  // namespace gptq::text
