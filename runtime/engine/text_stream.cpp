// SPDX-License-Identifier: Apache-2.0
#include "engine/text_stream.h"

#include <algorithm>
#include <cstring>

#include "gptq/gptq.h"
#include "text/utf8.h"

namespace gptq::engine {

void TextStream::start(const text::Tokenizer* tokenizer, bool keep_leading_space, bool keep_stop) {
  tokenizer_ = tokenizer;
  keep_leading_space_ = keep_leading_space;
  keep_stop_ = keep_stop;
  any_pushed_ = stopped_ = false;
  pushed_ = released_ = read_ = 0;
  token_ = byte_ = n_stops_ = 0;
  tail_size_ = 0;
}

bool TextStream::add_stop(const char* text, size_t size) {
  if (n_stops_ == stop_strings_max || size == 0 || size > stop_bytes_max) return false;
  Stop& stop = stops_[n_stops_++];
  std::memcpy(stop.text, text, size);
  stop.size = static_cast<uint32_t>(size);
  return true;
}

// Special tokens have no text here; a SentencePiece model's first token loses its space, as when the tokens are decoded alone.
std::string_view TextStream::bytes_of(int32_t token, bool first) const {
  if (!tokenizer_ || (tokenizer_->attributes(token) & GPTQ_TOKEN_SPECIAL)) return {};
  std::string_view bytes = tokenizer_->token_bytes(token);
  if (first && !keep_leading_space_ && tokenizer_->strips_leading_space() && bytes.starts_with(' ')) bytes.remove_prefix(1);
  return bytes;
}

int32_t TextStream::push(int32_t token) {
  const std::string_view bytes = bytes_of(token, !any_pushed_);
  any_pushed_ = true;
  if (bytes.empty())
    if (const int32_t stop = special_stop(token); stop >= 0) return stop;
  int32_t found = -1;
  // A long token goes through the tail in pieces, so that a stop string is found wherever it lies.
  for (size_t at = 0; at < bytes.size() && found < 0;) {
    const size_t n = std::min<size_t>(bytes.size() - at, 8);
    const size_t drop = tail_size_ + n > sizeof tail_ ? tail_size_ + n - sizeof tail_ : 0;
    std::memmove(tail_, tail_ + drop, tail_size_ - drop);
    std::memcpy(tail_ + tail_size_ - drop, bytes.data() + at, n);
    tail_size_ += n - drop;
    pushed_ += n;
    at += n;
    found = find_stop(n);
  }
  if (found < 0) released_ = std::max(released_, pushed_ - held_back());
  return found;
}

// A special token has no text here, but a stop string may name it.
int32_t TextStream::special_stop(int32_t token) {
  if (!tokenizer_ || !(tokenizer_->attributes(token) & GPTQ_TOKEN_SPECIAL)) return -1;
  for (uint32_t i = 0; i < n_stops_; ++i)
    if (tokenizer_->token_bytes(token) == std::string_view(stops_[i].text, stops_[i].size)) {
      released_ = pushed_;
      stopped_ = true;
      return static_cast<int32_t>(i);
    }
  return -1;
}

// A stop string that ends within the last n_new bytes; the earliest end wins. Releases the text before it.
int32_t TextStream::find_stop(size_t n_new) {
  const std::string_view tail(tail_, tail_size_);
  for (size_t end = tail_size_ - n_new + 1; end <= tail_size_; ++end)
    for (uint32_t i = 0; i < n_stops_; ++i) {
      const std::string_view stop(stops_[i].text, stops_[i].size);
      if (!tail.substr(0, end).ends_with(stop)) continue;
      released_ = pushed_ - (tail_size_ - end) - (keep_stop_ ? 0 : stop.size());
      stopped_ = true;
      return static_cast<int32_t>(i);
    }
  return -1;
}

// Bytes at the end that may be the beginning of a stop string, or of a code point.
size_t TextStream::held_back() const {
  const std::string_view tail(tail_, tail_size_);
  size_t held = 0;
  for (uint32_t i = 0; i < n_stops_; ++i) {
    const std::string_view stop(stops_[i].text, stops_[i].size);
    for (size_t n = std::min<size_t>(stop.size() - 1, tail.size()); n > held; --n)
      if (tail.ends_with(stop.substr(0, n))) held = n;
  }
  for (size_t n = 1; n <= 3 && n <= tail.size(); ++n) {
    const unsigned char c = static_cast<unsigned char>(tail[tail.size() - n]);
    if ((c & 0xC0) == 0x80) continue;
    const text::Sequence sequence = text::sequence_at(tail.substr(tail.size() - n));
    const uint32_t whole = c > 0xF4 || c < 0xC2 ? 1 : c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
    if (!sequence.valid && sequence.bytes == n && n < whole) held = std::max(held, n);
    break;
  }
  return held;
}

void TextStream::finish() {
  if (!stopped_) released_ = pushed_;
}

bool TextStream::go_to(const Place& place, std::span<const int32_t> tokens) {
  if (place.token > tokens.size() || place.read > released_) return false;
  uint64_t before = place.byte;
  for (uint32_t i = 0; i < place.token; ++i) before += bytes_of(tokens[i], i == 0).size();
  const size_t size = place.token < tokens.size() ? bytes_of(tokens[place.token], place.token == 0).size() : 0;
  if (before != place.read || place.byte > size) return false;
  read_ = place.read;
  token_ = place.token;
  byte_ = place.byte;
  return true;
}

size_t TextStream::read(std::span<const int32_t> tokens, std::span<char> out) {
  size_t written = 0;
  while (read_ < released_) {
    // The next bytes, enough for one code point, maybe from several tokens.
    char next[4];
    size_t n = 0;
    uint32_t token = token_, byte = byte_;
    while (n < 4 && read_ + n < released_ && token < tokens.size()) {
      const std::string_view bytes = bytes_of(tokens[token], token == 0);
      if (byte == bytes.size()) {
        ++token;
        byte = 0;
        continue;
      }
      next[n++] = bytes[byte++];
    }
    const text::Sequence sequence = text::sequence_at({next, n});
    const std::string_view whole = sequence.valid ? std::string_view(next, sequence.bytes) : "\xEF\xBF\xBD";
    if (written + whole.size() > out.size()) break;
    std::memcpy(out.data() + written, whole.data(), whole.size());
    written += whole.size();
    read_ += sequence.bytes;
    for (uint32_t left = sequence.bytes; left;) {
      const auto size = static_cast<uint32_t>(bytes_of(tokens[token_], token_ == 0).size());
      const uint32_t step = std::min(left, size - byte_);
      byte_ += step;
      left -= step;
      if (byte_ == size) {
        ++token_;
        byte_ = 0;
      }
    }
  }
  return written;
}

}  // namespace gptq::engine
