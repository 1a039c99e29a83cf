// SPDX-License-Identifier: Apache-2.0
#include "text/json.h"

#include <charconv>
#include <limits>

#include "text/jinja/print.h"
#include "text/jinja/sort.h"

namespace gptq::text {
namespace {

using namespace jinja;

class Reader {
 public:
  Reader(Heap& heap, std::string_view text, std::string_view document) : heap_(heap), text_(text), document_(document) {}

  Value read() {
    if (text_.size() > max_working_bytes / 2) fail("larger than the template may use memory for");
    if (!is_utf8(text_)) fail("is not UTF-8");
    const auto n = static_cast<uint32_t>(text_.size());
    strings_ = heap_.make<Buffer>(heap_.array<char>(n), heap_.array<uint8_t>(n), 0u, n);
    const Value v = value(0);
    skip();
    if (at_ != text_.size()) fail("more text after the value");
    strings_->capacity = strings_->used;
    return v;
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    base::fail_at(GPTQ_E_INVALID_ARGUMENT, at_, document_, " is no valid JSON at byte ", at_, ": ", parts...);
  }

  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail("'", std::string_view(&c, 1), "' is missing");
  }
  Value word(std::string_view name, const Value& v) {
    if (text_.substr(at_, name.size()) != name) fail("a value is missing");
    at_ += name.size();
    return v;
  }

  Value value(uint32_t depth) {
    if (depth > max_nesting) fail("nested deeper than ", max_nesting);
    skip();
    switch (peek()) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"': return string();
      case 't': return word("true", Value::of_bool(true));
      case 'f': return word("false", Value::of_bool(false));
      case 'n': return word("null", Value::none());
      default: return number();
    }
  }

  Value array(uint32_t depth) {
    ArrayBuilder items(heap_);
    ++at_;
    skip();
    if (take(']')) return items.finish(Kind::list);
    for (;;) {
      items.add(value(depth + 1));
      skip();
      if (take(']')) return items.finish(Kind::list);
      expect(',');
    }
  }

  Value object(uint32_t depth) {
    std::pmr::vector<Entry> entries(heap_.arena());
    ++at_;
    skip();
    if (!take('}')) do {
        heap_.spend(1);
        skip();
        if (peek() != '"') fail("a key is missing");
        const Value key = string();
        skip();
        expect(':');
        entries.push_back({key, value(depth + 1)});
        skip();
      } while (!take('}') && (expect(','), true));
    heap_.at = static_cast<uint32_t>(at_);
    Entry* kept = heap_.array<Entry>(entries.size());
    std::copy(entries.begin(), entries.end(), kept);
    return make_dict(heap_, kept, static_cast<uint32_t>(entries.size()), document_);
  }

  Value string() {
    Value v = Value::of(Kind::string);
    v.buffer = strings_;
    v.offset = strings_->used;
    for (++at_; !take('"');) {
      if (at_ == text_.size()) fail("a string without end");
      if (static_cast<unsigned char>(peek()) < 0x20) fail("a control character in a string");
      if (peek() == '\\') escape(); else put(text_[at_++]);
    }
    v.size = strings_->used - v.offset;
    return v;
  }

  void put(char c) {
    strings_->trust[strings_->used] = 0;
    strings_->bytes[strings_->used++] = c;
  }

  void escape() {
    constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    ++at_;
    const size_t i = names.find(peek());
    if (at_ < text_.size() && i != names.npos) {
      ++at_;
      return put(meanings[i]);
    }
    if (!take('u')) fail("unknown escape");
    uint32_t code = hex();
    if (code >= 0xD800 && code < 0xDC00 && take('\\')) {
      if (!take('u')) fail("half of a surrogate pair");
      const uint32_t low = hex();
      if (low < 0xDC00 || low >= 0xE000) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xD800 && code < 0xE000) {
      fail("half of a surrogate pair");
    }
    char utf8[4];
    for (const char c : encode(code, utf8)) put(c);
  }

  uint32_t hex() {
    uint32_t code = 0;
    const char* from = text_.data() + at_;
    if (text_.size() - at_ < 4 || std::from_chars(from, from + 4, code, 16).ptr != from + 4) fail("\\u without four hexadecimal digits");
    at_ += 4;
    return code;
  }

  void digits() {
    if (peek() < '0' || peek() > '9') fail("a value is missing");
    while (peek() >= '0' && peek() <= '9') ++at_;
  }

  Value number() {
    const size_t start = at_;
    take('-');
    if (!take('0')) digits();
    bool whole = true;
    if (take('.')) {
      whole = false;
      digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      digits();
    }
    const char *from = text_.data() + start, *to = text_.data() + at_;
    Value v = Value::of_int(0);
    if (whole && std::from_chars(from, to, v.integer).ec == std::errc()) return v;
    v.kind = Kind::number;
    if (std::from_chars(from, to, v.number).ec != std::errc()) fail("a number beyond double precision");
    if (to - from > std::numeric_limits<double>::digits10) v.size = heap_.keep_number({from, to});
    return v;
  }

  Heap& heap_;
  std::string_view text_, document_;
  size_t at_ = 0;
  Buffer* strings_ = nullptr;
};

}  // namespace

Value read_json(Heap& heap, std::string_view text, std::string_view document) {
  const uint32_t at = heap.at;
  const Value v = Reader(heap, text, document).read();
  heap.at = at;
  return v;
}

}  // namespace gptq::text
