// SPDX-License-Identifier: Apache-2.0
// The text of generated tokens as answer, thinking and tool calls. It is found when it is read, from the tokens: what
// was fed to the reader of marks, and where its result was read up to, is all that is kept.
#pragma once
#include <cstdint>
#include <span>

#include "engine/text_stream.h"
#include "text/argument_writer.h"
#include "text/mark_reader.h"

namespace gptq::engine {

class MarkStream {
 public:
  // tokens: those before the generated ones. The end of them, which may be the beginning of the model's turn, is read
  // too.
  void start(const text::MarkFormat& format, const TextStream& text, std::span<const int32_t> tokens);
  const text::MarkFormat& format() const { return format_; }
  // So many tokens before the generated ones belong to what is read.
  uint32_t n_before() const { return n_before_; }

  // What may be read: `tokens` are n_before() and the generated ones; of these the first `readable` stay.
  struct Source {
    const TextStream& text;
    std::span<const int32_t> tokens;
    uint32_t readable;
    bool ended;
  };
  struct Piece {
    enum class Kind : uint8_t { none, answer, thinking, call } kind = Kind::none;
    uint32_t number = 0;   // of the call
    bool goes_on = false;  // the call's arguments
    const text::MarkReader::Call* call = nullptr;
    size_t size = 0;
  };
  // The next piece. call: a copy, for the caller to keep.
  Piece read(const Source& source, std::span<char> out, text::MarkReader::Call& call);
  bool unread(const Source& source) const;

  // For saves: bytes that were read, and bytes of the text that were looked at.
  uint64_t taken() const { return taken_; }
  uint64_t looked_at() const { return place_.read - begin_; }
  // Goes on where so much was taken and looked at; false where that is not in the text.
  bool go_to(uint64_t taken, uint64_t looked_at, const Source& source);

 private:
  bool may_feed(const Source& source) const;
  void feed(const Source& source);
  void find(const Source& source, size_t wanted);
  void end_call();
  size_t take_arguments(const Source& source, std::span<char> out);
  size_t write_elements(const Source& source, std::span<char> out);

  text::MarkFormat format_;
  text::MarkReader reader_;
  uint32_t n_before_ = 0;
  uint64_t begin_ = 0;            // of the generated tokens' text
  TextStream::Place place_{};     // the reader's
  TextStream::Place taken_at_{};  // somewhere before what is read next
  uint64_t call_taken_ = 0;       // bytes of the arguments
  bool call_done_ = false;        // all of them are
  text::ArgumentWriter writer_;   // of those that are elements
  uint64_t taken_ = 0;
  bool ended_ = false;
};

}  // namespace gptq::engine
