// SPDX-License-Identifier: Apache-2.0
// The string functions that cut, replace and change case.
#include <algorithm>

#include "text/jinja/character_tables.h"
#include "text/jinja/strings.h"

namespace gptq::text::jinja {
namespace {

size_t previous(std::string_view text, size_t end) {
  do --end; while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

template <class Drop>
Value strip_if(const Value& string, Side side, const Drop& drop) {
  const std::string_view text = string.view();
  size_t from = 0, to = text.size();
  if (static_cast<int>(side) & static_cast<int>(Side::left))
    while (from < to && drop(code_point_at(text, from))) from += code_point_size(text[from]);
  if (static_cast<int>(side) & static_cast<int>(Side::right))
    for (size_t p; to > from && drop(code_point_at(text, p = previous(text, to)));) to = p;
  return slice(string, from, to - from);
}

bool contains(std::string_view characters, uint32_t code) {
  for (size_t i = 0; i < characters.size(); i += code_point_size(characters[i]))
    if (code_point_at(characters, i) == code) return true;
  return false;
}

bool ends_line(uint32_t c) { return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029; }

}  // namespace

Value strip(const Value& string, Side side) { return strip_if(string, side, is_space); }

Value strip(Heap& heap, const Value& string, std::string_view characters, Side side) {
  heap.spend_bytes(uint64_t{string.size} * std::min<size_t>(characters.size(), 16));
  if (characters.size() > 1024) heap.fail(GPTQ_E_TEMPLATE, "strip() of more than 1024 characters");
  return strip_if(string, side, [&](uint32_t code) {
    if (characters.size() > 16) heap.spend(1);
    return contains(characters, code);
  });
}

Value replace(Heap& heap, const Value& string, const Value& from, const Value& to, int64_t limit) {
  const std::string_view text = string.view(), what = from.view();
  Writer out(heap);
  size_t done = 0, search = 0;
  for (; limit != 0; --limit) {
    const size_t at = find(heap, text, what, search);
    if (at == not_found) break;
    heap.spend(1);
    out.add(string, done, at - done);
    out.add(to);
    done = at + what.size();
    search = done;
    if (!what.empty()) continue;
    if (at == text.size()) break;
    search = at + code_point_size(text[at]);  // an empty text is found before every character and at the end
  }
  out.add(string, done, text.size() - done);
  return out.finish(string.safe);
}

void split_lines(Heap& heap, const Value& string, bool keep_ends, ArrayBuilder& out) {
  const std::string_view text = string.view();
  heap.spend_bytes(text.size());
  size_t from = 0;
  for (size_t i = 0; i < text.size();) {
    const uint32_t code = code_point_at(text, i);
    size_t next = i + code_point_size(text[i]);
    if (!ends_line(code)) {
      i = next;
      continue;
    }
    if (code == '\r' && next < text.size() && text[next] == '\n') ++next;
    out.add(slice(string, from, (keep_ends ? next : i) - from));
    from = i = next;
  }
  if (from < text.size()) out.add(slice(string, from, text.size() - from));
}

Value split(Heap& heap, const Value& string, int64_t limit) {
  const std::string_view text = string.view();
  heap.spend_bytes(text.size());
  ArrayBuilder out(heap);
  const auto skip = [&](size_t i, bool spaces) {
    while (i < text.size() && is_space(code_point_at(text, i)) == spaces) i += code_point_size(text[i]);
    return i;
  };
  for (size_t i = skip(0, true); i < text.size(); --limit) {
    const size_t end = limit == 0 ? text.size() : skip(i, false);
    const Value part = slice(string, i, end - i);
    out.add(limit == 0 ? strip(part, Side::right) : part);
    i = skip(end, true);
  }
  return out.finish(Kind::list);
}

Value split(Heap& heap, const Value& string, const Value& separator, int64_t limit) {
  if (separator.size == 0) heap.fail(GPTQ_E_TEMPLATE, "split(): empty separator");
  const std::string_view text = string.view(), what = separator.view();
  ArrayBuilder out(heap);
  size_t from = 0;
  for (; limit != 0; --limit) {
    const size_t at = find(heap, text, what, from);
    if (at == not_found) break;
    out.add(slice(string, from, at - from));
    from = at + what.size();
  }
  out.add(slice(string, from, text.size() - from));
  return out.finish(Kind::list);
}

Value split_last(Heap& heap, const Value& string, const Value& separator, int64_t limit) {
  if (separator.size == 0) heap.fail(GPTQ_E_TEMPLATE, "rsplit(): empty separator");
  const std::string_view text = string.view(), what = separator.view();
  ArrayBuilder parts(heap);
  size_t end = text.size();
  for (; limit != 0; --limit) {
    const size_t at = find_last(heap, text.substr(0, end), what);
    if (at == not_found) break;
    parts.add(slice(string, at + what.size(), end - at - what.size()));
    end = at;
  }
  parts.add(slice(string, 0, end));
  const Value out = parts.finish(Kind::list);
  std::reverse(out.array->items, out.array->items + out.array->size);
  return out;
}

namespace {

template <size_t N>
const CaseRange* find_range(const CaseRange (&table)[N], uint32_t code) {
  const CaseRange* r = std::upper_bound(std::begin(table), std::end(table), code,
                                        [](uint32_t c, const CaseRange& x) { return c < x.first; });
  if (r == std::begin(table) || code > r[-1].last || (code - r[-1].first) % r[-1].step != 0) return nullptr;
  return r - 1;
}

template <size_t N>
uint32_t mapped(Heap& heap, const CaseRange (&table)[N], uint32_t code) {
  const CaseRange* r = find_range(table, code);
  if (r && r->delta == 0) heap.fail(GPTQ_E_TEMPLATE, "changing the case of U+", code, " (decimal) is outside the supported subset");
  return r ? code + static_cast<uint32_t>(r->delta) : code;
}

uint32_t upper(Heap& heap, uint32_t code) {
  if (code < 0x80) return code >= 'a' && code <= 'z' ? code - 32 : code;
  return mapped(heap, to_upper, code);
}

uint32_t lower(Heap& heap, uint32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  return mapped(heap, to_lower, code);
}

uint32_t title(Heap& heap, uint32_t code) {
  if (code >= 0x80 && find_range(odd_title, code)) return mapped(heap, odd_title, code);
  return upper(heap, code);
}

bool is_letter(uint32_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

// Where the filter `title` begins a new word after this character.
bool breaks_word(uint32_t c) { return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<'; }

}  // namespace

uint32_t small_letter(uint32_t code) {
  constexpr uint32_t capital_sigma = 0x3A3, final_sigma = 0x3C2, sigma = 0x3C3;
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  if (code == capital_sigma || code == final_sigma) return sigma;
  const CaseRange* r = find_range(to_lower, code);
  return r ? code + static_cast<uint32_t>(r->delta) : code;
}

Value change_case(Heap& heap, const Value& string, Case to) {
  const std::string_view text = string.view();
  heap.spend_bytes(16 * uint64_t{string.size});
  Writer out(heap);
  bool first = true;  // of the text or of a word
  for (size_t i = 0; i < text.size(); i += code_point_size(text[i])) {
    const uint32_t code = code_point_at(text, i);
    uint32_t changed = code;
    switch (to) {
      case Case::upper: changed = upper(heap, code); break;
      case Case::lower: changed = lower(heap, code); break;
      case Case::words: changed = first ? upper(heap, code) : lower(heap, code); first = breaks_word(code); break;
      case Case::capitalize: changed = first ? title(heap, code) : lower(heap, code); first = false; break;
      case Case::title:
        if (code >= 0x80) heap.fail(GPTQ_E_TEMPLATE, "title() of text that is not ASCII is outside the supported subset");
        changed = first ? upper(heap, code) : lower(heap, code);
        first = !is_letter(code);
        break;
    }
    out.add_code_point(changed, string.trust()[i]);
  }
  return out.finish(string.safe);
}

}  // namespace gptq::text::jinja
