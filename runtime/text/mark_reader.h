// SPDX-License-Identifier: Apache-2.0
// Reads a text as it grows, and says what of it is answer, thinking and tool calls.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "text/json_scan.h"
#include "text/marks.h"

namespace gptq::text {

// What a call is, is known when its JSON is complete; what turns out to be none is text up to there. So nothing is kept
// of the text but a few names and numbers: places in it, counted in bytes. White space beside a mark belongs to the
// mark.
class MarkReader {
 public:
  static constexpr size_t name_bytes_max = 127, id_bytes_max = 63;
  enum class Kind : uint8_t { answer, thinking };
  struct Range {
    uint64_t begin = 0, end = 0;
    uint64_t size() const { return end - begin; }
  };
  struct Call {
    char name[name_bytes_max + 1], id[id_bytes_max + 1];  // with zeros behind them
    Range arguments;  // their JSON, or of formats that have elements these; empty: there are none
  };

  // before: what is read first stands before what is to be told, up to begin_here.
  void start(const MarkFormat& format, bool before = false);
  void begin_here();

  // The next byte, or a special token, which is no text. Not while something waits.
  void feed(char c);
  void feed_special(std::string_view name);
  // Nothing more will come.
  void end();

  // Text that is known to be of this kind. What comes behind it waits until it is taken.
  Kind kind() const { return kind_; }
  Range known() const;
  void take_text(uint64_t bytes);
  // Whether a call, or text of another kind, stands behind the known text.
  bool waits() const { return call_waits_ || switch_waits_; }
  // The call, where no text is left before it.
  const Call* call() const { return call_waits_ && !known().size() ? &call_ : nullptr; }
  uint32_t n_calls() const { return n_calls_; }
  void take_call();
  // Whether the end would tell nothing more.
  bool idle() const {
    return !n_open_ && (skips_space_ ? phase_ == Phase::text || phase_ == Phase::behind : end_ == at_);
  }

 private:
  enum class Phase : uint8_t {
    text,
    section,
    opened,
    name,
    second_name,
    id,
    before_arguments,
    arguments,
    object,
    in_list,
    parameters,
    key,
    before_value,
    value,
    behind,
  };
  using Marks = uint32_t;  // a bit for each
  std::string_view mark(Mark m) const { return marks_[static_cast<size_t>(m)]; }
  Marks awaited() const;
  void drain(bool whole);
  bool on_byte(char c);
  bool on_mark(Mark m, bool special);
  void on_text(char c);
  bool on_object(char c);
  bool begin_object(char c, bool bare);
  void begin_name();
  bool add_to(char* to, uint8_t& n, size_t most, char c);
  bool finish_name();
  bool begin_parameters(size_t mark_bytes);
  bool finish_call();
  void give_up();
  void switch_to(Kind kind);
  void apply_switch();

  std::array<std::string_view, n_marks> marks_{};
  Calls calls_ = Calls::none;
  uint64_t at_ = 0;                 // place of the first byte that is not read
  char open_[mark_bytes_max] = {};  // from there on: may become a mark
  uint8_t n_open_ = 0;

  Phase phase_ = Phase::text;
  Kind kind_ = Kind::answer;
  uint64_t begin_ = 0, end_ = 0;  // the known text
  uint64_t floor_ = 0;            // nothing before it is told
  bool before_ = false;           // nothing is told yet
  bool skips_space_ = false;      // a mark is just behind
  bool answers_ = false;          // the answer has text since the last mark
  bool switch_waits_ = false, call_waits_ = false;
  Kind next_kind_ = Kind::answer;
  uint64_t next_begin_ = 0;
  uint32_t n_calls_ = 0;

  // The call that is being read.
  enum class Key : uint8_t { other, name, arguments, id, type };
  Call call_{};
  uint8_t n_name_ = 0, n_id_ = 0, n_key_ = 0;
  bool bare_ = false, list_ = false, fenced_ = false;
  bool has_name_ = false, has_arguments_ = false;
  Key key_ = Key::other;
  char key_text_[12] = {};
  JsonScan json_;
};

}  // namespace gptq::text
