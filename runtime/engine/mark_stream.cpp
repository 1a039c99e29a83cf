// SPDX-License-Identifier: Apache-2.0
#include "engine/mark_stream.h"

#include <algorithm>

namespace gptq::engine {
namespace {

constexpr std::string_view no_arguments = "{}";
constexpr uint32_t before_most = 256, before_unknown = 8;

}  // namespace

void MarkStream::start(const text::MarkFormat& format, const TextStream& text, std::span<const int32_t> tokens) {
  *this = {};
  format_ = format;
  reader_.start(format, true);
  // Back to the last token of the template's own: from there on it is the model's turn, which the template or the host
  // may have begun.
  const auto of_template = [&](int32_t token) {
    const std::string_view special = text.special_of(token);
    return text.is_added(token) && !format.has(special.empty() ? text.bytes_of(token, false) : special);
  };
  const auto most = static_cast<uint32_t>(std::min<size_t>(tokens.size(), before_most));
  while (n_before_ < most && !of_template(tokens[tokens.size() - 1 - n_before_])) ++n_before_;
  if (n_before_ == most) n_before_ = std::min(most, before_unknown);
  const std::span<const int32_t> before = tokens.last(n_before_);
  const Source source{text, before, 0, false};
  while (place_.token < n_before_) {
    while (reader_.waits() || reader_.known().size()) {
      reader_.take_text(reader_.known().size());
      if (reader_.call()) reader_.take_call();
    }
    feed(source);
  }
  reader_.take_text(reader_.known().size());
  if (reader_.call()) reader_.take_call();
  reader_.begin_here();
  begin_ = place_.read;
}

bool MarkStream::may_feed(const Source& source) const {
  if (place_.token >= source.tokens.size()) return false;
  const int32_t token = source.tokens[place_.token];
  const bool in_text = place_.read - begin_ < source.text.released();
  if (in_text || source.text.special_of(token).empty()) return in_text;
  return place_.read - begin_ == source.text.released() && place_.token - n_before_ < source.readable;
}

// A byte, or a token without any.
void MarkStream::feed(const Source& source) {
  const int32_t token = source.tokens[place_.token];
  const std::string_view bytes = source.text.bytes_of(token, place_.token == n_before_);
  if (bytes.empty()) {
    const std::string_view special = source.text.special_of(token);
    if (!special.empty()) reader_.feed_special(special);
    ++place_.token;
    return;
  }
  reader_.feed(bytes[place_.byte]);
  ++place_.read;
  if (++place_.byte == bytes.size()) ++place_.token, place_.byte = 0;
}

// Reads on until so much is known, or what comes is of another kind.
void MarkStream::find(const Source& source, size_t wanted) {
  while (!reader_.waits() && reader_.known().size() < wanted && may_feed(source)) feed(source);
  if (source.ended && !ended_ && !reader_.waits() && !may_feed(source)) {
    reader_.end();
    ended_ = true;
  }
}

// Bytes of the waiting call's arguments.
size_t MarkStream::take_arguments(const Source& source, std::span<char> out) {
  const text::MarkReader::Range all = reader_.call()->arguments;
  size_t n;       // bytes given,
  uint64_t step;  // and how far that is: what is no UTF-8 is given as U+FFFD
  if (!all.size()) {
    step = n = no_arguments.substr(static_cast<size_t>(call_taken_)).copy(out.data(), out.size());
    call_done_ = call_taken_ + step == no_arguments.size();
  } else if (has_elements(format_.calls)) {
    step = n = write_elements(source, out);
    call_done_ = writer_.done();
  } else {
    source.text.move(taken_at_, all.begin + call_taken_, source.tokens, n_before_);
    const uint64_t from = taken_at_.read;
    n = source.text.copy(taken_at_, all.end, source.tokens, n_before_, out);
    step = taken_at_.read - from;
    call_done_ = call_taken_ + step == all.size();
  }
  call_taken_ += step;
  taken_ += step;
  return n;
}

size_t MarkStream::write_elements(const Source& source, std::span<char> out) {
  const text::MarkReader::Range all = reader_.call()->arguments;
  if (!call_taken_) writer_.start(format_, all.begin, all.end);
  TextStream::Place looked = taken_at_;
  const auto at = [&](uint64_t place) {
    source.text.move(taken_at_, writer_.place(), source.tokens, n_before_);
    if (place < looked.read) looked = taken_at_;
    source.text.move(looked, place, source.tokens, n_before_);
    for (;; ++looked.token, looked.byte = 0) {
      const std::string_view bytes = source.text.bytes_of(source.tokens[looked.token], looked.token == n_before_);
      if (looked.byte < bytes.size()) return bytes[looked.byte];
    }
  };
  return writer_.write(at, out);
}

MarkStream::Piece MarkStream::read(const Source& source, std::span<char> out, text::MarkReader::Call& call) {
  find(source, out.size() + 4);  // what ends it is not within a code point that has place
  Piece piece;
  if (const auto known = reader_.known(); known.size()) {
    piece.kind = reader_.kind() == text::MarkReader::Kind::thinking ? Piece::Kind::thinking : Piece::Kind::answer;
    source.text.move(taken_at_, known.begin, source.tokens, n_before_);
    piece.size = source.text.copy(taken_at_, known.end, source.tokens, n_before_, out);
    taken_ += taken_at_.read - known.begin;
    reader_.take_text(taken_at_.read - known.begin);
    return piece;
  }
  if (!reader_.call()) return piece;
  piece.kind = Piece::Kind::call;
  piece.number = reader_.n_calls();
  call = *reader_.call();
  piece.call = &call;
  piece.size = take_arguments(source, out);
  piece.goes_on = !call_done_;
  if (call_done_) end_call();
  return piece;
}

void MarkStream::end_call() {
  call_taken_ = 0;
  call_done_ = false;
  reader_.take_call();
}

bool MarkStream::unread(const Source& source) const {
  return reader_.waits() || reader_.known().size() || may_feed(source) || (source.ended && !ended_ && !reader_.idle());
}

bool MarkStream::go_to(uint64_t taken, uint64_t looked_at, const Source& source) {
  while (taken_ < taken) {
    find(source, 1);  // no further than was looked at
    const uint64_t left = taken - taken_, known = reader_.known().size();
    if (known) {
      reader_.take_text(std::min(left, known));
      taken_ += std::min(left, known);
    } else if (const auto* call = reader_.call(); call && !has_elements(format_.calls) && call->arguments.size()) {
      const uint64_t step = std::min(left, call->arguments.size() - call_taken_);
      call_taken_ += step;
      taken_ += step;
      if (call_taken_ == call->arguments.size()) end_call();
    } else if (call) {
      char text[64];
      if (!take_arguments(source, std::span(text).first(static_cast<size_t>(std::min<uint64_t>(left, sizeof text)))))
        return false;
      if (call_done_) end_call();
    } else {
      return false;
    }
  }
  while (place_.read - begin_ < looked_at && !reader_.waits() && may_feed(source)) feed(source);
  return true;
}

}  // namespace gptq::engine
