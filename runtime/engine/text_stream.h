// SPDX-License-Identifier: Apache-2.0
// The text of generated tokens, released in whole code points, held back while a stop string or a banned phrase may still be coming.
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

#include "text/phrases.h"
#include "text/tokenizer.h"

namespace gptq::engine {

constexpr size_t stop_strings_max = 16, stop_bytes_max = 256;

// Bytes are made from the tokens when they are read; only a tail is kept, to look for stop strings in.
class TextStream {
 public:
  // tokenizer may be NULL: there is no text then.
  // Phrases, where there are any, must outlive it.
  void start(const text::Tokenizer* tokenizer, bool keep_leading_space, bool keep_stop, const text::Phrases* phrases = nullptr);
  // False when there are too many stop strings or one is empty or too long.
  bool add_stop(const char* text, size_t size);

  // Takes note of the last of the tokens, which is new. Returns the index of the stop string it completed, or one of these.
  static constexpr int32_t goes_on = -1, has_phrase = -2;
  int32_t push(std::span<const int32_t> tokens);
  // After has_phrase: so many of the last tokens hold the phrase. They are to go before anything else.
  uint32_t phrase_tokens() const { return phrase_tokens_; }
  void go_back(std::span<const int32_t> tokens);
  // So many of the last tokens may yet go: their text is held back.
  uint32_t tokens_held() const { return tokens_held_; }
  // So many of the first tokens never go. For saves: it does not follow from the tokens.
  uint32_t settled() const { return settled_; }
  void settle(uint32_t tokens) {
    tokens_held_ -= std::min(tokens_held_, tokens - std::min(tokens, settled_));
    settled_ = std::max(settled_, tokens);
  }
  // Where the text stands in the phrases, once these tokens have followed it.
  text::Phrases::Place phrase_place(std::span<const int32_t> more, bool first) const;
  std::string_view bytes_of(int32_t token, bool first) const;
  // A special token's own text, "" for others.
  std::string_view special_of(int32_t token) const;
  bool is_added(int32_t token) const;  // to the vocabulary: special, or a word of its own
  // No more tokens will come: what was held back is released, but for a stop string found.
  void finish();

  // Moves released text into out: whole code points, invalid bytes as U+FFFD. tokens: all that were pushed.
  size_t read(std::span<const int32_t> tokens, std::span<char> out);
  uint64_t unread() const { return released_ - read_; }
  uint64_t released() const { return released_; }
  // In the text of tokens, of which the first `before` stand before the generated ones.
  struct Place {
    uint64_t read;         // bytes
    uint32_t token, byte;  // where the next is
  };
  void move(Place& place, uint64_t to, std::span<const int32_t> tokens, uint32_t before) const;
  // As read, from a place up to an end.
  size_t copy(Place& place, uint64_t end, std::span<const int32_t> tokens, uint32_t before, std::span<char> out) const;

  // For saves.
  Place place() const { return {read_, token_, byte_}; }
  // False where that is no place in the released text. tokens: as for read.
  bool go_to(const Place& place, std::span<const int32_t> tokens);
  // So much of it was released, as a save says. False where it is not there.
  bool release(uint64_t bytes);
  uint32_t n_stops() const { return n_stops_; }
  std::string_view stop(uint32_t i) const { return {stops_[i].text, stops_[i].size}; }
  bool keeps_leading_space() const { return keep_leading_space_; }
  bool keeps_stop() const { return keep_stop_; }

 private:
  int32_t special_stop(int32_t token);
  int32_t push_bytes(std::string_view bytes, bool look);
  size_t held_for_phrases(std::span<const int32_t> tokens);
  int32_t find_stop(size_t n_new);
  size_t held_back() const;

  struct Stop {
    char text[stop_bytes_max];
    uint32_t size;
  };
  const text::Tokenizer* tokenizer_ = nullptr;
  const text::Phrases* phrases_ = nullptr;
  text::Phrases::Place phrase_place_;
  uint32_t phrase_tokens_ = 0, tokens_held_ = 0, settled_ = 0;
  bool keep_leading_space_ = false, keep_stop_ = false, stopped_ = false;
  uint64_t pushed_ = 0;    // bytes of all tokens so far
  uint64_t released_ = 0;  // of them may be read
  uint64_t read_ = 0;      // were read
  uint32_t token_ = 0;     // the reader's place: this token,
  uint32_t byte_ = 0;      // this byte of it
  bool any_pushed_ = false;
  uint32_t n_stops_ = 0;
  Stop stops_[stop_strings_max];
  char tail_[stop_bytes_max + 8];  // the last bytes pushed
  size_t tail_size_ = 0;
};

}  // namespace gptq::engine
