// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/strings.h"

#include <algorithm>
#include <cstring>

#include "text/jinja/character_tables.h"

namespace gptq::text::jinja {

void Writer::reserve(size_t more, size_t spare) {
  const size_t used = size();
  if (more > max_output_bytes || used + more > max_output_bytes)
    heap_.fail(GPTQ_E_TEMPLATE, "a text of the template grows beyond ", max_output_bytes, " bytes");
  heap_.spend_bytes(more);
  if (buffer_ && used + more <= buffer_->capacity) return;
  const size_t capacity = std::max<size_t>(used + more + spare, buffer_ ? 2 * buffer_->capacity : 64);
  Buffer* grown = heap_.make<Buffer>(heap_.array<char>(capacity), heap_.array<uint8_t>(capacity), static_cast<uint32_t>(used),
                                     static_cast<uint32_t>(capacity));
  if (used) {
    std::memcpy(grown->bytes, buffer_->bytes, used);
    std::memcpy(grown->trust, buffer_->trust, used);
  }
  buffer_ = grown;
}

void Writer::add(std::string_view bytes, bool is_trusted) {
  if (bytes.empty()) return;
  reserve(bytes.size());
  std::memcpy(buffer_->bytes + buffer_->used, bytes.data(), bytes.size());
  std::memset(buffer_->trust + buffer_->used, is_trusted, bytes.size());
  buffer_->used += static_cast<uint32_t>(bytes.size());
}

void Writer::add(const Value& string) { add(string, 0, string.size); }

void Writer::add(const Value& string, size_t offset, size_t n) {
  if (n == 0) return;
  reserve(n);
  std::memcpy(buffer_->bytes + buffer_->used, string.buffer->bytes + string.offset + offset, n);
  std::memcpy(buffer_->trust + buffer_->used, string.buffer->trust + string.offset + offset, n);
  buffer_->used += static_cast<uint32_t>(n);
}

void Writer::add_code_point(uint32_t code, bool is_trusted) {
  char utf8[4];
  add(encode(code, utf8), is_trusted);
}

Value Writer::finish(bool safe) {
  Value v = Value::of(Kind::string);
  v.safe = safe;
  v.size = static_cast<uint32_t>(size());
  v.buffer = buffer_;
  buffer_ = nullptr;
  return v;
}

Value make_string(Heap& heap, std::string_view bytes, bool trusted) {
  Writer out(heap);
  out.add(bytes, trusted);
  return out.finish();
}

Value slice(const Value& string, size_t offset, size_t n) {
  Value v = string;
  v.offset += static_cast<uint32_t>(offset);
  v.size = static_cast<uint32_t>(n);
  return v;
}

Value concat(Heap& heap, const Value& a, const Value& b) {
  if (b.size == 0 || a.size == 0) {
    Value v = a.size ? a : b;
    v.safe = a.safe || b.safe;
    return v;
  }
  Writer out(heap);
  Buffer& buffer = *a.buffer;
  const bool in_place = a.offset + a.size == buffer.used && b.size <= buffer.capacity - buffer.used;
  if (in_place) {
    out.buffer_ = &buffer;
  } else {
    const size_t n = size_t{a.size} + b.size;
    out.reserve(n, n);
    out.add(a);
  }
  out.add(b);
  const Value v = out.finish(a.safe || b.safe);
  return in_place ? slice(v, a.offset, size_t{a.size} + b.size) : v;
}

Value escape(Heap& heap, const Value& string) {
  if (string.safe) return string;
  Writer out(heap);
  const std::string_view text = string.view();
  size_t from = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const char* entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '\'' ? "&#39;" : c == '"' ? "&#34;" : nullptr;
    if (!entity) continue;
    out.add(string, from, i - from);
    out.add(entity, string.trust()[i]);
    from = i + 1;
  }
  out.add(string, from, text.size() - from);
  return out.finish(true);
}

Value repeat(Heap& heap, const Value& string, int64_t n) {
  if (n <= 0 || string.size == 0) return slice(string, 0, 0);
  if (n > max_output_bytes / string.size)
    heap.fail(GPTQ_E_TEMPLATE, "a text repeated ", n, " times grows beyond ", max_output_bytes, " bytes");
  Writer out(heap);
  heap.spend(static_cast<uint64_t>(n));
  for (; n > 0; --n) out.add(string);
  return out.finish(string.safe);
}

bool trusted(const Value& string) { return string.size == 0 || !std::memchr(string.trust(), 0, string.size); }

std::string_view encode(uint32_t code, char (&utf8)[4]) {
  if (code < 0x80) {
    utf8[0] = static_cast<char>(code);
    return {utf8, 1};
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  utf8[0] = static_cast<char>(0xFF << (7 - more) | code >> 6 * more);
  for (int i = 1; i <= more; ++i) utf8[i] = static_cast<char>(0x80 | (code >> 6 * (more - i) & 0x3F));
  return {utf8, static_cast<size_t>(more) + 1};
}

size_t code_point_size(char first) {
  const auto c = static_cast<unsigned char>(first);
  return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

uint32_t code_point_at(std::string_view text, size_t at) {
  const size_t n = code_point_size(text[at]);
  uint32_t code = static_cast<unsigned char>(text[at]) & (n == 1 ? 0x7F : 0xFF >> (n + 1));
  for (size_t i = 1; i < n; ++i) code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  return code;
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t byte_offset(std::string_view text, size_t code_points) {
  size_t at = 0;
  for (; code_points > 0 && at < text.size(); --code_points) at += code_point_size(text[at]);
  return at;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      ++i;
      continue;
    }
    const size_t n = code_point_size(text[i]);
    if (c < 0xC2 || c > 0xF4 || text.size() - i < n) return false;
    for (size_t k = 1; k < n; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    const uint32_t code = code_point_at(text, i);
    if (code < (n == 2 ? 0x80u : n == 3 ? 0x800u : 0x10000u) || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    i += n;
  }
  return true;
}

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(uint32_t code) {
  return (std::upper_bound(std::begin(printable_edges), std::end(printable_edges), code) - std::begin(printable_edges)) % 2 == 1;
}

namespace {

// Positions that begin like `what` are compared by hand, so that the steps spent are the work done.
bool matches(Heap& heap, std::string_view text, size_t at, std::string_view what) {
  size_t n = 1;
  while (n < what.size() && text[at + n] == what[n]) {
    if (++n % 256 == 0) heap.spend(1);
  }
  return n == what.size();
}

}  // namespace

size_t find(Heap& heap, std::string_view text, std::string_view what, size_t from) {
  if (what.empty()) return from <= text.size() ? from : not_found;
  const size_t start = from;
  for (size_t tries = 1; from + what.size() <= text.size(); ++from, ++tries) {
    const void* hit = std::memchr(text.data() + from, what[0], text.size() - what.size() + 1 - from);
    if (!hit) break;
    from = static_cast<size_t>(static_cast<const char*>(hit) - text.data());
    if (tries % 32 == 0) heap.spend(1);
    if (!matches(heap, text, from, what)) continue;
    heap.spend_bytes(from - start);
    return from;
  }
  heap.spend_bytes(text.size());
  return not_found;
}

size_t find_last(Heap& heap, std::string_view text, std::string_view what) {
  if (what.size() > text.size()) return not_found;
  heap.spend_bytes(text.size());
  if (what.empty()) return text.size();
  for (size_t i = text.size() - what.size() + 1; i-- > 0;)
    if (text[i] == what[0] && matches(heap, text, i, what)) return i;
  return not_found;
}

size_t count(Heap& heap, std::string_view text, std::string_view what) {
  if (what.empty()) return count_code_points(text) + 1;
  size_t n = 0;
  for (size_t at = find(heap, text, what); at != not_found; at = find(heap, text, what, at + what.size())) {
    heap.spend(1);
    ++n;
  }
  return n;
}

}  // namespace gptq::text::jinja
