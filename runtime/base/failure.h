// SPDX-License-Identifier: Apache-2.0
// How the inside of the library fails: it throws a Failure, and api/ turns it into a status at the C boundary.
#pragma once
#include <concepts>
#include <cstdint>
#include <string_view>

#include "gptq/gptq.h"

namespace gptq::base {

struct Failure {
  gptq_error detail;
};

// A status together with the place that raised it.
struct Code {
  gptq_status status;
  const char* file;
  int line;
  Code(gptq_status s, const char* f = __builtin_FILE(), int l = __builtin_LINE()) : status(s), file(f), line(l) {}
};

// Builds the message in place: no allocation, long parts are cut.
class MessageWriter {
 public:
  explicit MessageWriter(Code code);
  void add(std::string_view text);
  void add(const char* text) { add(std::string_view(text)); }
  void add(double value);
  void add_signed(int64_t value);
  void add_unsigned(uint64_t value);
  template <std::integral T>
  void add(T value) {
    if constexpr (std::is_signed_v<T>) add_signed(value); else add_unsigned(value);
  }
  gptq_error error{};

 private:
  size_t used_ = 0;
};

// fail(GPTQ_E_FORMAT, "tensor ", name, ": ", n, " rows where ", expected, " belong")
template <class... Parts>
[[noreturn]] void fail(Code code, const Parts&... parts) {
  MessageWriter message(code);
  (message.add(parts), ...);
  throw Failure{message.error};
}

// The same for a place in a file or a template.
template <class... Parts>
[[noreturn]] void fail_at(Code code, uint64_t offset, const Parts&... parts) {
  MessageWriter message(code);
  (message.add(parts), ...);
  message.error.offset = offset;
  throw Failure{message.error};
}

// The same for an operating system call: errno and its text.
[[noreturn]] void fail_os(Code code, int os_code, std::string_view what, std::string_view name);

}  // namespace gptq::base
