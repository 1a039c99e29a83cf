// SPDX-License-Identifier: Apache-2.0
// Splitting by a regular expression that the converter made a table of.
#pragma once
#include <string_view>

#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace gptq::text {

class Pattern {
 public:
  Pattern() = default;
  // Of a section that was checked.
  Pattern(const fb::Tokenizer& facts, const fb::Pattern& pattern);

  // Calls use(piece) for the pieces of text, which is valid UTF-8 unless the pattern is over bytes. None is empty.
  template <class Use>
  void split(std::string_view text, const Use& use) const {
    Pending pending;
    const auto put = [&](size_t begin, size_t end, bool is_match) {
      if (pending.any && joins(pending.is_match, is_match)) pending.end = end;
      else {
        if (shows(pending)) use(text.substr(pending.begin, pending.end - pending.begin));
        pending = {begin, end, true, is_match};
      }
      pending.is_match = is_match;
    };
    size_t done = 0;
    for (Match m; next_match(text, done, m); done = m.end) {
      if (done < m.begin) put(done, m.begin, invert_);
      put(m.begin, m.end, !invert_);
    }
    if (done < text.size()) put(done, text.size(), invert_);
    if (shows(pending)) use(text.substr(pending.begin, pending.end - pending.begin));
  }

 private:
  static constexpr size_t no_match = SIZE_MAX;
  struct Pending {
    size_t begin = 0, end = 0;
    bool any = false, is_match = false;
  };
  struct Match {
    size_t begin = 0, end = 0;
    bool any = false;
  };

  bool joins(bool before, bool now) const {
    switch (behavior_) {
      case fb::Behavior::merged_with_previous: return now && !before;
      case fb::Behavior::merged_with_next: return before && !now;
      case fb::Behavior::contiguous: return before == now;
      default: return false;
    }
  }
  bool shows(const Pending& p) const { return p.begin < p.end && !(p.is_match && behavior_ == fb::Behavior::removed); }
  bool next_match(std::string_view text, size_t from, Match& m) const;
  size_t match_end(std::string_view text, size_t at, uint32_t before) const;
  uint32_t class_at(std::string_view text, size_t& at) const;

  const uint16_t *next_ = nullptr, *start_ = nullptr, *index_ = nullptr;
  const uint8_t *blocks_ = nullptr, *byte_classes_ = nullptr;
  uint32_t n_index_ = 0, n_classes_ = 0;
  fb::Behavior behavior_ = fb::Behavior::isolated;
  bool invert_ = false, looks_behind_ = false;
};

}  // namespace gptq::text
