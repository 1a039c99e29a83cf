// SPDX-License-Identifier: Apache-2.0
// NFC as Unicode's annex 15 has it: decompose, put marks in order, compose; one starter with its marks at a time.
#include "text/nfc.h"

#include <algorithm>
#include <vector>

#include "text/unicode/classes.h"
#include "text/utf8.h"

namespace gptq::text {
namespace {

constexpr uint32_t hangul = 0xAC00, hangul_l = 0x1100, hangul_v = 0x1161, hangul_t = 0x11A7;
constexpr uint32_t n_l = 19, n_v = 21, n_t = 28;

struct Decomposition {
  uint32_t code, first, second;
};

Decomposition row(size_t i) {
  const uint32_t* p = unicode::decompositions + 3 * i;
  return {p[0], p[1], p[2]};
}

// The first of n for which before(i) is false.
template <class Before>
size_t partition(size_t n, const Before& before) {
  size_t low = 0;
  while (n) {
    const size_t half = n / 2;
    if (before(low + half)) {
      low += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return low;
}

uint8_t combining_class(uint32_t code) {
  if (!unicode::may_change_in_nfc(code)) return 0;
  const size_t n = std::size(unicode::combining);
  const size_t i = partition(n, [&](size_t at) { return unicode::combining[at] >> 8 < code; });
  return i < n && unicode::combining[i] >> 8 == code ? unicode::combining[i] & 0xFF : 0;
}

bool decomposition(uint32_t code, Decomposition& out) {
  const size_t n = std::size(unicode::decompositions) / 3;
  const size_t i = partition(n, [&](size_t at) { return row(at).code < code; });
  if (i == n) return false;
  out = row(i);
  return out.code == code;
}

// 0: they do not compose.
uint32_t composition(uint32_t first, uint32_t second) {
  if (first - hangul_l < n_l && second - hangul_v < n_v) return hangul + ((first - hangul_l) * n_v + (second - hangul_v)) * n_t;
  if (first - hangul < n_l * n_v * n_t && (first - hangul) % n_t == 0 && second > hangul_t && second - hangul_t < n_t)
    return first + (second - hangul_t);
  const size_t n = std::size(unicode::compositions);
  const size_t i = partition(n, [&](size_t at) {
    const Decomposition d = row(unicode::compositions[at]);
    return d.first != first ? d.first < first : d.second < second;
  });
  if (i == n) return 0;
  const Decomposition d = row(unicode::compositions[i]);
  return d.first == first && d.second == second ? d.code : 0;
}

struct Mark {
  uint32_t code;
  uint8_t order;
  size_t at;
};

// Characters from one starter up to the next that nothing before can compose with.
class Segment {
 public:
  Segment(std::pmr::string& out) : marks_(out.get_allocator().resource()), out_(out) {}

  void add(uint32_t code) {
    if (code - hangul < n_l * n_v * n_t) {
      const uint32_t s = code - hangul;
      put(hangul_l + s / (n_v * n_t));
      put(hangul_v + s / n_t % n_v);
      if (s % n_t) put(hangul_t + s % n_t);
      return;
    }
    uint32_t tail[4];  // canonical decompositions are at most four long
    int n = 0;
    Decomposition d;
    while (n < 4 && decomposition(code, d)) {
      if (d.second) tail[n++] = d.second;
      code = d.first;
    }
    put(code);
    while (n) put(tail[--n]);
  }

  void flush() {
    settle();
    emit();
  }

 private:
  void put(uint32_t code) {
    if (const uint8_t order = combining_class(code)) {
      marks_.push_back({code, order, marks_.size()});
      return;
    }
    settle();
    const uint32_t both = has_starter_ && marks_.empty() ? composition(starter_, code) : 0;
    if (!both) emit();
    starter_ = both ? both : code;
    has_starter_ = true;
  }

  // Marks in order; each composes with the starter unless one of the same order stands between them.
  void settle() {
    const auto before = [](const Mark& a, const Mark& b) { return a.order != b.order ? a.order < b.order : a.at < b.at; };
    std::sort(marks_.begin(), marks_.end(), before);
    if (!has_starter_) return;
    size_t kept = 0;
    int blocked = 0;
    for (const Mark mark : marks_) {
      const uint32_t both = mark.order > blocked ? composition(starter_, mark.code) : 0;
      if (both) {
        starter_ = both;
      } else {
        blocked = mark.order;
        marks_[kept++] = mark;
      }
    }
    marks_.resize(kept);
  }

  void emit() {
    if (has_starter_) append_utf8(starter_, out_);
    for (const Mark& mark : marks_) append_utf8(mark.code, out_);
    marks_.clear();
    has_starter_ = false;
  }

  std::pmr::vector<Mark> marks_;
  uint32_t starter_ = 0;
  bool has_starter_ = false;
  std::pmr::string& out_;
};

}  // namespace

size_t nfc_quick_check(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0xCC) {  // below U+0300
      ++at;
      continue;
    }
    const Character c = character_at(text.data() + at);
    if (unicode::may_change_in_nfc(c.code)) return at;
    at += c.bytes;
  }
  return at;
}

void append_nfc(std::string_view text, std::pmr::string& out) {
  Segment segment(out);
  while (!text.empty()) {
    size_t quiet = nfc_quick_check(text);
    // The character before the first that may change can be its starter.
    if (quiet < text.size() && quiet) quiet = last_character(text.substr(0, quiet));
    if (quiet) {
      segment.flush();
      out.append(text.substr(0, quiet));
      text.remove_prefix(quiet);
      continue;
    }
    const Character c = character_at(text.data());
    segment.add(c.code);
    text.remove_prefix(c.bytes);
  }
  segment.flush();
}

}  // namespace gptq::text
