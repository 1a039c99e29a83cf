// SPDX-License-Identifier: Apache-2.0
#include "text/argument_writer.h"

#include <algorithm>
#include <cstring>

#include "text/json_scan.h"
#include "text/utf8.h"

namespace gptq::text {
namespace {

constexpr std::string_view raw_begin = "<![CDATA[", raw_end = "]]>";

}  // namespace

void ArgumentWriter::start(const MarkFormat& format, uint64_t begin, uint64_t end) {
  *this = {};
  format_ = format;
  phase_ = Phase::begin;
  at_ = begin;
  end_ = end;
}

void ArgumentWriter::say(std::string_view unit) {
  unit_size_ = static_cast<uint8_t>(unit.copy(unit_, sizeof unit_));
  unit_at_ = 0;
}

// The end where it is not there.
uint64_t ArgumentWriter::find(const Bytes& text, std::string_view what, uint64_t from) const {
  for (; from + what.size() <= end_; ++from) {
    size_t n = 0;
    while (n < what.size() && text[from + n] == what[n]) ++n;
    if (n == what.size()) return from;
  }
  return end_;
}

// Whether these bytes are a value other than a string, or Python's word for one.
bool ArgumentWriter::is_json(const Bytes& text, uint64_t begin, uint64_t end, bool& python) const {
  python = false;
  for (const std::string_view word : {std::string_view("True"), std::string_view("False"), std::string_view("None")}) {
    bool same = end - begin == word.size();
    for (size_t i = 0; same && i < word.size(); ++i) same = text[begin + i] == word[i];
    python |= same;
  }
  if (python) return true;
  JsonScan json;
  for (uint64_t i = begin; i < end; ++i) {
    const char c = text[i];
    if (json.ended() && is_json_space(c)) {
      for (; i < end; ++i)
        if (!is_json_space(text[i])) return false;
      return true;
    }
    if (json.depth() == 0 && c == '"') return false;
    if (json.feed(c) == JsonScan::Result::bad) return false;
  }
  return json.ended();
}

void ArgumentWriter::begin_value(const Bytes& text) {
  at_ = next_;
  if (const std::string_view mark = format_.mark(Mark::value); !mark.empty())
    at_ = std::min(end_, find(text, mark, at_) + mark.size());
  const std::string_view mark = format_.mark(Mark::value_end);
  part_end_ = find(text, mark, at_);
  next_ = std::min(end_, part_end_ + mark.size());
  // A value stands on lines of its own, or as it is where markup must not count.
  if (at_ < part_end_ && text[at_] == '\n') ++at_;
  if (at_ < part_end_ && text[part_end_ - 1] == '\n') --part_end_;
  if (format_.calls == Calls::params && part_end_ - at_ >= raw_begin.size() + raw_end.size() &&
      find(text, raw_begin, at_) == at_ &&
      find(text, raw_end, part_end_ - raw_end.size()) == part_end_ - raw_end.size()) {
    at_ += raw_begin.size();
    part_end_ -= raw_end.size();
    phase_ = Phase::string;
  } else {
    phase_ = is_json(text, at_, part_end_, python_) ? Phase::raw : Phase::string;
  }
  say(phase_ == Phase::string ? "\": \"" : "\": ");
}

// The next character of a string.
void ArgumentWriter::character(const Bytes& text) {
  char next[4];
  size_t n = 0;
  for (; n < 4 && at_ + n < part_end_; ++n) next[n] = text[at_ + n];
  const Sequence sequence = sequence_at({next, n});
  at_ += sequence.bytes;
  if (!sequence.valid) return say("\xEF\xBF\xBD");
  const auto c = static_cast<unsigned char>(next[0]);
  constexpr char digits[] = "0123456789abcdef";
  if (phase_ == Phase::raw) return say({next, sequence.bytes});
  const char escape[] = {'\\', next[0]}, code[] = {'\\', 'u', '0', '0', digits[c / 16], digits[c % 16]};
  if (c == '"' || c == '\\') return say({escape, sizeof escape});
  if (c == '\n') return say("\\n");
  if (c == '\t') return say("\\t");
  if (c == '\r') return say("\\r");
  if (c < 0x20) return say({code, sizeof code});
  say({next, sequence.bytes});
}

void ArgumentWriter::step(const Bytes& text) {
  switch (phase_) {
    case Phase::begin:
      phase_ = Phase::next;
      return say("{");
    case Phase::next: {
      const std::string_view mark = format_.mark(Mark::key), mark_end = format_.mark(Mark::key_end);
      at_ = find(text, mark, at_);
      if (at_ == end_) {
        phase_ = Phase::done;
        return say("}");
      }
      at_ += mark.size();
      part_end_ = find(text, mark_end, at_);
      next_ = std::min(end_, part_end_ + mark_end.size());
      phase_ = Phase::key;
      say(any_ ? ", \"" : "\"");
      any_ = true;
      return;
    }
    case Phase::key:
      return at_ < part_end_ ? character(text) : begin_value(text);
    case Phase::string:
      if (at_ < part_end_) return character(text);
      at_ = next_;
      phase_ = Phase::next;
      return say("\"");
    case Phase::raw:
      if (python_) {
        const char c = text[at_];
        say(c == 'T' ? "true" : c == 'F' ? "false" : "null");
        python_ = false;
        at_ = part_end_;
        return;
      }
      if (at_ < part_end_) return character(text);
      at_ = next_;
      phase_ = Phase::next;
      return;
    case Phase::done:
      return;
  }
}

}  // namespace gptq::text
