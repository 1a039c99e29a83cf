// SPDX-License-Identifier: Apache-2.0
#include "engine/text_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "gptq/gptq.h"
#include "text/utf8.h"

namespace gptq::engine {

void TextStream::start(const text::Tokenizer* tokenizer, bool keep_leading_space, bool keep_stop, const text::Phrases* phrases) {
  tokenizer_ = tokenizer;
  phrases_ = phrases;
  phrase_place_ = {};
  phrase_tokens_ = tokens_held_ = settled_ = 0;
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

std::string_view TextStream::special_of(int32_t token) const {
  if (!tokenizer_ || !(tokenizer_->attributes(token) & GPTQ_TOKEN_SPECIAL)) return {};
  return tokenizer_->token_bytes(token);
}

bool TextStream::is_added(int32_t token) const {
  return tokenizer_ && tokenizer_->attributes(token) & (GPTQ_TOKEN_SPECIAL | GPTQ_TOKEN_ADDED);
}

int32_t TextStream::push(std::span<const int32_t> tokens) {
  const int32_t token = tokens.back();
  const std::string_view bytes = bytes_of(token, !any_pushed_);
  any_pushed_ = true;
  if (bytes.empty())
    if (const int32_t stop = special_stop(token); stop >= 0) return stop;
  const text::Phrases::Hit hit = phrases_ ? phrases_->read(phrase_place_, bytes) : text::Phrases::Hit{};
  // Of a stop string and a phrase that which ends first counts.
  const int32_t found = push_bytes(hit.size ? bytes.substr(0, hit.end - 1) : bytes, true);
  if (found >= 0) return found;
  if (hit.size) {
    phrase_tokens_ = 1;
    for (size_t i = tokens.size() - 1, covered = hit.end; covered < hit.size; ++phrase_tokens_) {
      --i;
      covered += bytes_of(tokens[i], i == 0).size();
    }
    phrase_tokens_ = std::min(phrase_tokens_, static_cast<uint32_t>(tokens.size()) - settled_);
    return has_phrase;
  }
  released_ = std::max(released_, pushed_ - std::max(held_back(), held_for_phrases(tokens)));
  return goes_on;
}

// Whole tokens, so that they can go. Those that were settled once stay so: what goes back and then leads to a phrase that begins among them
// goes back no further.
size_t TextStream::held_for_phrases(std::span<const int32_t> tokens) {
  size_t held = 0, i = tokens.size();
  while (phrases_ && i > settled_ && held < phrase_place_.open()) {
    --i;
    held += bytes_of(tokens[i], i == 0).size();
  }
  settled_ = static_cast<uint32_t>(i);
  tokens_held_ = static_cast<uint32_t>(tokens.size() - i);
  return held;
}

// Tail and place follow from the last bytes alone: a phrase is no longer than the tail.
void TextStream::go_back(std::span<const int32_t> tokens) {
  static_assert(text::Phrases::bytes_max <= stop_bytes_max);
  uint64_t bytes = 0;
  size_t first = tokens.size();
  for (; first && bytes < sizeof tail_ + 8; --first) bytes += bytes_of(tokens[first - 1], first == 1).size();
  uint64_t before = 0;
  for (size_t i = 0; i < first; ++i) before += bytes_of(tokens[i], i == 0).size();
  pushed_ = before;
  tail_size_ = 0;
  phrase_place_ = {};
  any_pushed_ = !tokens.empty();
  for (size_t i = first; i < tokens.size(); ++i) {
    const std::string_view text = bytes_of(tokens[i], i == 0);
    phrases_->read(phrase_place_, text);
    push_bytes(text, false);
  }
  held_for_phrases(tokens);
}

text::Phrases::Place TextStream::phrase_place(std::span<const int32_t> more, bool first) const {
  text::Phrases::Place place = phrase_place_;
  for (const int32_t token : more) phrases_->read(place, bytes_of(token, std::exchange(first, false)));
  return place;
}

// Returns the index of a stop string, where they are looked for.
int32_t TextStream::push_bytes(std::string_view bytes, bool look) {
  int32_t found = goes_on;
  // A long token goes through the tail in pieces, so that a stop string is found wherever it lies.
  for (size_t at = 0; at < bytes.size() && found < 0;) {
    const size_t n = std::min<size_t>(bytes.size() - at, 8);
    const size_t drop = tail_size_ + n > sizeof tail_ ? tail_size_ + n - sizeof tail_ : 0;
    std::memmove(tail_, tail_ + drop, tail_size_ - drop);
    std::memcpy(tail_ + tail_size_ - drop, bytes.data() + at, n);
    tail_size_ += n - drop;
    pushed_ += n;
    at += n;
    if (look) found = find_stop(n);
  }
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
    const std::string_view last = tail.substr(tail.size() - n);
    if ((static_cast<unsigned char>(last[0]) & 0xC0) == 0x80) continue;
    if (text::may_become_valid(last)) held = std::max(held, n);
    break;
  }
  return held;
}

void TextStream::finish() {
  settled_ += std::exchange(tokens_held_, 0);
  if (!stopped_) released_ = pushed_;
}

bool TextStream::go_to(const Place& place, std::span<const int32_t> tokens) {
  if (phrases_ && place.read <= pushed_) released_ = std::max(released_, place.read);
  if (place.token > tokens.size() || place.read > released_) return false;
  uint64_t before = place.byte;
  for (uint32_t i = 0; i < place.token; ++i) before += bytes_of(tokens[i], i == 0).size();
  const size_t size = place.token < tokens.size() ? bytes_of(tokens[place.token], place.token == 0).size() : 0;
  if (before != place.read || place.byte > size || (phrases_ && place.token > settled_)) return false;
  read_ = place.read;
  token_ = place.token;
  byte_ = place.byte;
  return true;
}

bool TextStream::release(uint64_t bytes) {
  if (bytes > pushed_ || (bytes > released_ && !phrases_)) return false;
  released_ = std::max(released_, bytes);
  return true;
}

size_t TextStream::read(std::span<const int32_t> tokens, std::span<char> out) {
  Place at = place();
  const size_t written = copy(at, released_, tokens, 0, out);
  read_ = at.read;
  token_ = at.token;
  byte_ = at.byte;
  return written;
}

void TextStream::move(Place& place, uint64_t to, std::span<const int32_t> tokens, uint32_t before) const {
  while (place.read < to) {
    const auto size = static_cast<uint32_t>(bytes_of(tokens[place.token], place.token == before).size());
    const auto step = static_cast<uint32_t>(std::min<uint64_t>(to - place.read, size - place.byte));
    place.read += step;
    place.byte += step;
    if (place.byte == size) ++place.token, place.byte = 0;
  }
}

size_t TextStream::copy(Place& place, uint64_t end, std::span<const int32_t> tokens, uint32_t before,
                        std::span<char> out) const {
  size_t written = 0;
  while (place.read < end) {
    // The next bytes, enough for one code point, maybe from several tokens.
    char next[4];
    size_t n = 0;
    uint32_t token = place.token, byte = place.byte;
    while (n < 4 && place.read + n < end && token < tokens.size()) {
      const std::string_view bytes = bytes_of(tokens[token], token == before);
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
    move(place, place.read + sequence.bytes, tokens, before);
  }
  return written;
}

}  // namespace gptq::engine
