// SPDX-License-Identifier: Apache-2.0
// Text with provenance: building, slicing and searching it by code points, never losing which bytes came from the template.
#pragma once
#include <string_view>

#include "text/jinja/value.h"

namespace gptq::text::jinja {

// Appends to one buffer. Values are strings of this heap.
class Writer {
 public:
  explicit Writer(Heap& heap) : heap_(heap) {}
  void add(std::string_view bytes, bool trusted);
  void add(const Value& string);
  void add(const Value& string, size_t offset, size_t n);  // a slice in bytes
  void fill(size_t n, char c) { for (; n > 0; --n) add(std::string_view(&c, 1), true); }
  void add_code_point(uint32_t code, bool trusted);
  size_t size() const { return buffer_ ? buffer_->used : 0; }
  std::string_view view() const { return buffer_ ? std::string_view(buffer_->bytes, buffer_->used) : std::string_view(); }
  const uint8_t* trust() const { return buffer_ ? buffer_->trust : nullptr; }
  Value finish(bool safe = false);

 private:
  friend Value concat(Heap& heap, const Value& a, const Value& b);
  void reserve(size_t more, size_t spare = 0);
  Heap& heap_;
  Buffer* buffer_ = nullptr;
};

Value make_string(Heap& heap, std::string_view bytes, bool trusted);
Value slice(const Value& string, size_t offset, size_t n);  // in bytes; shares the buffer
Value concat(Heap& heap, const Value& a, const Value& b);
Value escape(Heap& heap, const Value& string);  // & < > ' " for HTML; a safe string stays
Value repeat(Heap& heap, const Value& string, int64_t n);
bool trusted(const Value& string);  // every byte

std::string_view encode(uint32_t code, char (&utf8)[4]);

// UTF-8 that is known to be valid.
size_t code_point_size(char first);
uint32_t code_point_at(std::string_view text, size_t at);
size_t count_code_points(std::string_view text);
size_t byte_offset(std::string_view text, size_t code_points);
bool is_utf8(std::string_view text);
bool is_space(uint32_t code);  // str.isspace
bool is_printable(uint32_t code);  // str.isprintable

constexpr size_t not_found = static_cast<size_t>(-1);
size_t find(Heap& heap, std::string_view text, std::string_view what, size_t from = 0);
size_t find_last(Heap& heap, std::string_view text, std::string_view what);
size_t count(Heap& heap, std::string_view text, std::string_view what);

enum class Side { left = 1, right = 2, both = 3 };
Value strip(const Value& string, Side side);  // white space
Value strip(Heap& heap, const Value& string, std::string_view characters, Side side);
Value replace(Heap& heap, const Value& string, const Value& from, const Value& to, int64_t limit);
void split_lines(Heap& heap, const Value& string, bool keep_ends, ArrayBuilder& out);
Value split(Heap& heap, const Value& string, int64_t limit);  // at white space
Value split(Heap& heap, const Value& string, const Value& separator, int64_t limit);
Value split_last(Heap& heap, const Value& string, const Value& separator, int64_t limit);

enum class Case { upper, lower, title, capitalize, words };  // title: str.title; words: the filter `title`
Value change_case(Heap& heap, const Value& string, Case to);
// Of one character, where it is one too; of all sigmas the same.
uint32_t small_letter(uint32_t code);

}  // namespace gptq::text::jinja
