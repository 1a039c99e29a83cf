// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/lexer.h"

#include <charconv>

#include "text/jinja/strings.h"

namespace gptq::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_line_end(char c) { return c == '\n' || c == '\r'; }

class Lexer {
 public:
  Lexer(Heap& heap, std::string_view source) : heap_(heap), source_(source), tokens_(heap.arena()) {
    const size_t n = source_.size();
    if (n && source_[n - 1] == '\n') source_.remove_suffix(n > 1 && source_[n - 2] == '\r' ? 2 : 1);
    else if (n && source_[n - 1] == '\r') source_.remove_suffix(1);
  }

  std::pmr::vector<Token> run() {
    while (pos_ < source_.size()) text();
    push(Lexeme::end, pos_, pos_);
    return std::move(tokens_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void fail(size_t at, const Parts&... parts) {
    base::fail_at(GPTQ_E_TEMPLATE, at, parts...);
  }
  void push(Lexeme kind, size_t from, size_t to) {
    tokens_.push_back({kind, static_cast<uint32_t>(from), source_.substr(from, to - from)});
  }
  bool sees(std::string_view what, size_t at) const { return source_.compare(at, what.size(), what) == 0; }
  size_t after_spaces(size_t at) const {
    while (at < source_.size() && is_space(code_point_at(source_, at))) at += code_point_size(source_[at]);
    return at;
  }
  size_t after_line_end(size_t at) const {
    return sees("\r\n", at) ? at + 2 : at < source_.size() && is_line_end(source_[at]) ? at + 1 : at;
  }

  // Data up to the next tag, less what the tag's sign and lstrip_blocks take from its end.
  void push_data(size_t from, size_t to, char sign, bool may_lstrip) {
    const std::string_view text = source_.substr(from, to - from);
    if (sign == '-') {
      to = from + right_stripped(text);
    } else if (sign != '+' && may_lstrip) {
      const size_t line = text.find_last_of("\r\n") + 1;  // npos + 1 == 0
      if ((line > 0 || line_starting_) && after_spaces(from + line) >= to) to = from + line;
    }
    if (to > from) push(Lexeme::data, from, to);
  }

  static size_t right_stripped(std::string_view text) {
    size_t end = 0;
    for (size_t i = 0; i < text.size(); i += code_point_size(text[i]))
      if (!is_space(code_point_at(text, i))) end = i + code_point_size(text[i]);
    return end;
  }

  void text() {
    const size_t from = pos_;
    size_t tag = from;
    do tag = source_.find('{', tag); while (tag != source_.npos && !sees("{%", tag) && !sees("{{", tag) && !sees("{#", tag) && ++tag);
    if (tag == source_.npos) {
      push(Lexeme::data, from, source_.size());
      pos_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    pos_ = tag + 2;
    const char sign = pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+') ? source_[pos_++] : ' ';
    push_data(from, tag, sign, kind != '{');
    line_starting_ = false;
    if (kind == '#') return comment(tag);
    if (kind == '%' && raw_begins()) return raw(tag);
    push(kind == '%' ? Lexeme::block_begin : Lexeme::print_begin, tag, pos_);
    tag_content(tag, kind == '%' ? '%' : '}');
  }

  // After the `}` of a comment or block: `-` takes all white space, none one line end, `+` nothing.
  void close(char sign, size_t end) {
    pos_ = sign == '-' ? after_spaces(end) : sign == '+' ? end : after_line_end(end);
    line_starting_ = pos_ > end && is_line_end(source_[pos_ - 1]);
  }
  static char sign_of(char c) { return c == '-' || c == '+' ? c : ' '; }

  void comment(size_t tag) {
    const size_t end = source_.find("#}", pos_);
    if (end == source_.npos) fail(tag, "a comment without end");
    close(end > pos_ ? sign_of(source_[end - 1]) : ' ', end + 2);
  }

  bool raw_begins() {
    size_t at = after_spaces(pos_);
    if (!sees("raw", at)) return false;
    at = after_spaces(at + 3);
    const bool strip = sees("-%}", at);
    if (!strip && !sees("%}", at)) return false;
    pos_ = strip ? after_spaces(at + 3) : at + 2;
    line_starting_ = strip && is_line_end(source_[pos_ - 1]);
    return true;
  }

  void raw(size_t tag) {
    const size_t from = pos_;
    for (size_t at = pos_; (at = source_.find("{%", at)) != source_.npos; at += 2) {
      const char sign = at + 2 < source_.size() ? sign_of(source_[at + 2]) : ' ';
      size_t end = after_spaces(at + (sign == ' ' ? 2 : 3));
      if (!sees("endraw", end)) continue;
      end = after_spaces(end + 6);
      const char closing = end < source_.size() ? sign_of(source_[end]) : ' ';
      if (closing != ' ') ++end;
      if (!sees("%}", end)) continue;
      push_data(from, at, sign, true);
      return close(closing, end + 2);
    }
    fail(tag, "raw without endraw");
  }

  // Tokens up to the end of the tag: `end` is the first character of %} or }}.
  void tag_content(size_t tag, char end) {
    std::pmr::vector<char> open(heap_.arena());
    for (;;) {
      pos_ = after_spaces(pos_);
      if (pos_ >= source_.size()) fail(tag, "a tag without end");
      const char c = source_[pos_], sign = sign_of(c);
      const size_t closing = pos_ + (sign != ' ' && (sign == '-' || end == '%'));
      if (open.empty() && closing + 1 < source_.size() && source_[closing] == end && source_[closing + 1] == '}') {
        push(end == '%' ? Lexeme::block_end : Lexeme::print_end, pos_, closing + 2);
        if (end == '%') return close(sign, closing + 2);
        pos_ = sign == '-' ? after_spaces(closing + 2) : closing + 2;
        line_starting_ = pos_ > closing + 2 && is_line_end(source_[pos_ - 1]);
        return;
      }
      if (is_digit(c)) number();
      else if (is_name(c)) take_while(Lexeme::name, is_name);
      else if (c == '"' || c == '\'') quoted(c);
      else symbol(open);
    }
  }

  template <class Accept>
  void take_while(Lexeme kind, Accept accept) {
    const size_t from = pos_;
    while (pos_ < source_.size() && accept(source_[pos_])) ++pos_;
    if (pos_ < source_.size() && static_cast<unsigned char>(source_[pos_]) >= 0x80)
      fail(pos_, "a name that is not ASCII is outside the supported subset");
    push(kind, from, pos_);
  }

  // Digits with an optional fraction and exponent; not after a dot, so that `x.0.1` is two subscripts.
  void number() {
    const size_t from = pos_;
    const auto digits = [&](size_t at) { while (at < source_.size() && is_digit(source_[at])) ++at; return at; };
    size_t to = digits(from);
    bool whole = true;
    if (!tokens_.back().is(".")) {
      const auto fraction = [&](size_t at) {
        return at + 1 < source_.size() && source_[at] == '.' && is_digit(source_[at + 1]) ? digits(at + 1) : at;
      };
      const size_t point = fraction(to);
      size_t exponent = point;
      if (exponent < source_.size() && (source_[exponent] | 32) == 'e') {
        ++exponent;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
        exponent = digits(exponent) > exponent ? digits(exponent) : point;
      }
      whole = exponent == to;
      to = exponent;
    }
    if (to < source_.size() && is_name(source_[to])) fail(from, "a number of this form is outside the supported subset");
    if (whole && source_[from] == '0' && source_.substr(from, to - from).find_first_not_of('0') != source_.npos)
      fail(from, "a number with a leading zero");
    pos_ = to;
    push(whole ? Lexeme::integer : Lexeme::number, from, to);
  }

  void quoted(char quote) {
    const size_t from = pos_++;
    while (pos_ < source_.size() && source_[pos_] != quote) pos_ += source_[pos_] == '\\' ? 2 : 1;
    if (pos_ >= source_.size()) fail(from, "a string without end");
    push(Lexeme::string, from, ++pos_);
  }

  void symbol(std::pmr::vector<char>& open) {
    constexpr std::string_view pairs[] = {"//", "**", "==", "!=", ">=", "<="}, single = "+-/*%~[](){}<>=.:|,;";
    size_t n = 0;
    for (const std::string_view pair : pairs) if (sees(pair, pos_)) n = 2;
    const char c = source_[pos_];
    if (n == 0 && single.find(c) != single.npos) n = 1;
    if (n == 0) fail(pos_, "unexpected character '", source_.substr(pos_, code_point_size(c)), "'");
    if (c == '(' || c == '[' || c == '{') {
      if (open.size() >= 1024) fail(pos_, "brackets nested too deeply");
      open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) fail(pos_, "unexpected '", source_.substr(pos_, 1), "'");
      open.pop_back();
    }
    push(Lexeme::symbol, pos_, pos_ + n);
    pos_ += n;
  }

  Heap& heap_;
  std::string_view source_;
  std::pmr::vector<Token> tokens_;
  size_t pos_ = 0;
  bool line_starting_ = true;
};

}  // namespace

std::pmr::vector<Token> tokenize(Heap& heap, std::string_view source) { return Lexer(heap, source).run(); }

Value read_data(Heap& heap, const Token& token) {
  Writer out(heap);
  for (size_t from = 0; from < token.text.size();) {
    const size_t end = token.text.find('\r', from);
    out.add(token.text.substr(from, end - from), true);
    if (end == token.text.npos) break;
    out.add("\n", true);
    from = end + (token.text.substr(end, 2) == "\r\n" ? 2 : 1);
  }
  return out.finish();
}

namespace {

// \xhh, \uhhhh, \Uhhhhhhhh: `digits` of them at the front of text.
uint32_t read_hex(const Token& token, std::string_view text, size_t digits) {
  uint32_t code = 0;
  if (text.size() < digits || std::from_chars(text.data(), text.data() + digits, code, 16).ptr != text.data() + digits)
    base::fail_at(GPTQ_E_TEMPLATE, token.at, "a truncated escape in a string");
  if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) base::fail_at(GPTQ_E_TEMPLATE, token.at, "an escape that is no character");
  return code;
}

// What follows a backslash; returns how many bytes of text it is.
size_t write_escape(Writer& out, const Token& token, std::string_view text) {
  constexpr std::string_view names = "\\'\"abfnrtv", meanings = "\\'\"\a\b\f\n\r\t\v";
  const char c = text[0];
  if (const size_t i = names.find(c); i != names.npos) {
    out.add(meanings.substr(i, 1), true);
    return 1;
  }
  if (is_line_end(c)) return text.substr(0, 2) == "\r\n" ? 2 : 1;
  if (c == 'x' || c == 'u' || c == 'U') {
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    out.add_code_point(read_hex(token, text.substr(1), digits), true);
    return 1 + digits;
  }
  if (c == 'N') base::fail_at(GPTQ_E_TEMPLATE, token.at, "\\N in a string is outside the supported subset");
  if (c >= '0' && c <= '7') {
    uint32_t code = 0;
    const char* end = std::from_chars(text.data(), text.data() + std::min<size_t>(3, text.size()), code, 8).ptr;
    out.add_code_point(code, true);
    return static_cast<size_t>(end - text.data());
  }
  out.add("\\", true);  // Python keeps the backslash of an unknown escape
  return 0;
}

}  // namespace

Value read_string(Heap& heap, const Token& token) {
  Writer out(heap);
  std::string_view text = token.text.substr(1, token.text.size() - 2);
  while (!text.empty()) {
    const size_t plain = std::min(text.find_first_of("\\\r"), text.size());
    out.add(text.substr(0, plain), true);
    text.remove_prefix(plain);
    if (text.empty()) break;
    const bool escape = text[0] == '\\';
    if (!escape) out.add("\n", true);
    text.remove_prefix(escape ? 1 : text.substr(0, 2) == "\r\n" ? 2 : 1);
    if (escape) text.remove_prefix(write_escape(out, token, text));
  }
  return out.finish();
}

}  // namespace gptq::text::jinja
