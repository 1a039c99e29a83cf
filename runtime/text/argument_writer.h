// SPDX-License-Identifier: Apache-2.0
// The arguments of a tool call that are written as elements, as a JSON object. Nobody says here what type a value has:
// one that is JSON other than a string, or Python's True, False or None, is that; any other is a string.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "text/marks.h"

namespace gptq::text {

class ArgumentWriter {
 public:
  // From begin to end is what MarkReader found between name and end of the call.
  void start(const MarkFormat& format, uint64_t begin, uint64_t end);
  bool done() const { return phase_ == Phase::done && unit_at_ == unit_size_; }
  // Nothing before it is looked at again.
  uint64_t place() const { return at_; }
  // Writes on, whole code points, as much as has room. at(place) is the byte of the text there.
  template <class At>
  size_t write(At&& at, std::span<char> out) {
    size_t n = 0;
    while (n < out.size()) {
      if (unit_at_ == unit_size_) {
        if (phase_ == Phase::done) break;
        step(at);
        continue;
      }
      // ASCII may be cut, characters not.
      const size_t left = unit_size_ - unit_at_;
      if (unit_[0] & 0x80 && left > out.size() - n) break;
      const size_t size = left < out.size() - n ? left : out.size() - n;
      for (size_t i = 0; i < size; ++i) out[n++] = unit_[unit_at_++];
    }
    return n;
  }

 private:
  enum class Phase : uint8_t { begin, next, key, string, raw, done };
  struct Bytes {  // of the text, for what is compiled once
    void* user;
    char (*at)(void* user, uint64_t place);
    char operator[](uint64_t place) const { return at(user, place); }
  };
  template <class At>
  void step(At& at) {
    step(Bytes{const_cast<void*>(static_cast<const void*>(&at)),
               [](void* user, uint64_t place) { return (*static_cast<At*>(user))(place); }});
  }
  void step(const Bytes& text);
  void say(std::string_view unit);
  void character(const Bytes& text);
  void begin_value(const Bytes& text);
  uint64_t find(const Bytes& text, std::string_view what, uint64_t from) const;
  bool is_json(const Bytes& text, uint64_t begin, uint64_t end, bool& python) const;

  MarkFormat format_;
  Phase phase_ = Phase::done;
  bool any_ = false, python_ = false;
  uint64_t at_ = 0, end_ = 0;         // of the whole
  uint64_t part_end_ = 0, next_ = 0;  // of a key or value; what is looked at behind it
  char unit_[12] = {};
  uint8_t unit_size_ = 0, unit_at_ = 0;
};

}  // namespace gptq::text
