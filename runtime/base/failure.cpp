// SPDX-License-Identifier: Apache-2.0
#include "base/failure.h"

#include <charconv>
#include <cstring>
#include <system_error>

namespace gptq::base {
namespace {

// The path below the source tree's runtime/ or converter/ folder.
std::string_view short_path(std::string_view path) {
  for (std::string_view folder : {"runtime/", "converter/"}) {
    const size_t at = path.rfind(folder);
    if (at != path.npos) return path.substr(folder == "runtime/" ? at + folder.size() : at);
  }
  return path.substr(path.rfind('/') + 1);
}

// Length of the longest prefix of at most cap bytes that ends at a code point boundary.
size_t whole_code_points(std::string_view text, size_t cap) {
  if (text.size() <= cap) return text.size();
  while (cap > 0 && (static_cast<unsigned char>(text[cap]) & 0xC0) == 0x80) --cap;
  return cap;
}

template <size_t N, class T>
std::string_view digits(char (&buffer)[N], T value) {
  return {buffer, static_cast<size_t>(std::to_chars(buffer, buffer + N, value).ptr - buffer)};
}

}  // namespace

MessageWriter::MessageWriter(Code code) {
  error.struct_size = sizeof error;
  error.status = code.status;
  char line[24];
  const std::string_view path = short_path(code.file), number = digits(line, code.line);
  const size_t n = path.size() < 40 ? path.size() : 40;
  std::memcpy(error.site, path.data(), n);
  error.site[n] = ':';
  std::memcpy(error.site + n + 1, number.data(), number.size() < 6 ? number.size() : 6);
}

// Control characters from files become '?', so that a message is always one line.
void MessageWriter::add(std::string_view text) {
  const size_t n = whole_code_points(text, sizeof error.message - 1 - used_);
  for (size_t i = 0; i < n; ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    error.message[used_++] = c < 0x20 || c == 0x7F ? '?' : text[i];
  }
}

void MessageWriter::add(double value) {
  char buffer[40];
  add(digits(buffer, value));
}
void MessageWriter::add_signed(int64_t value) {
  char buffer[24];
  add(digits(buffer, value));
}
void MessageWriter::add_unsigned(uint64_t value) {
  char buffer[24];
  add(digits(buffer, value));
}

void fail_os(Code code, int os_code, std::string_view what, std::string_view name) {
  MessageWriter message(code);
  message.add(what);
  message.add(" '");
  message.add(name);
  message.add("': ");
  message.add(std::generic_category().message(os_code));
  message.error.os_code = os_code;
  throw Failure{message.error};
}

}  // namespace gptq::base
