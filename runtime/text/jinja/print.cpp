// SPDX-License-Identifier: Apache-2.0
#include "text/jinja/print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace gptq::text::jinja {
namespace {

constexpr char hex_digits[] = "0123456789abcdef";

void write_escape(Writer& out, char letter, uint32_t code, int digits, bool trusted) {
  char text[10] = {'\\', letter};
  for (int i = 0; i < digits; ++i) text[2 + i] = hex_digits[code >> 4 * (digits - 1 - i) & 15];
  out.add({text, static_cast<size_t>(2 + digits)}, trusted);
}

void write_quoted(Writer& out, std::string_view text, bool trusted) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  out.add({&quote, 1}, trusted);
  for (size_t i = 0; i < text.size(); i += code_point_size(text[i])) {
    const uint32_t code = code_point_at(text, i);
    const char c = text[i];
    if (c == quote || c == '\\') {
      const char escaped[] = {'\\', c};
      out.add({escaped, 2}, trusted);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out.add(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", trusted);
    } else if (is_printable(code)) {
      out.add(text.substr(i, code_point_size(c)), trusted);
    } else {
      write_escape(out, code < 0x100 ? 'x' : code < 0x10000 ? 'u' : 'U', code, code < 0x100 ? 2 : code < 0x10000 ? 4 : 8, trusted);
    }
  }
  out.add({&quote, 1}, trusted);
}

void write_repr(Heap& heap, Writer& out, const Value& v, bool trusted);

void write_array(Heap& heap, Writer& out, const Value& v, bool trusted) {
  const Array& a = *v.array;
  out.add(v.is(Kind::list) ? "[" : "(", trusted);
  for (uint32_t i = 0; i < a.size; ++i) {
    if (i) out.add(", ", trusted);
    write_repr(heap, out, a.items[i], trusted);
  }
  out.add(v.is(Kind::list) ? "]" : a.size == 1 ? ",)" : ")", trusted);
}

void write_dict(Heap& heap, Writer& out, const Dict& d, bool trusted) {
  out.add("{", trusted);
  for (uint32_t i = 0; i < d.size; ++i) {
    if (i) out.add(", ", trusted);
    write_repr(heap, out, d.entries[i].key, trusted);
    out.add(": ", trusted);
    write_repr(heap, out, d.entries[i].value, trusted);
  }
  out.add("}", trusted);
}

void write_repr(Heap& heap, Writer& out, const Value& v, bool trusted) {
  heap.spend(1);
  NumberText buffer;
  switch (v.kind) {
    case Kind::undefined: return out.add("Undefined", trusted);
    case Kind::none: return out.add("None", trusted);
    case Kind::boolean: return out.add(v.boolean ? "True" : "False", trusted);
    case Kind::integer: return out.add(number_text(v.integer, buffer), trusted);
    case Kind::number: return out.add(number_text(heap, v, buffer), trusted);
    case Kind::string:
      heap.spend_bytes(8 * uint64_t{v.size});
      if (!v.safe) return write_quoted(out, v.view(), trusted);
      out.add("Markup(", trusted);
      write_quoted(out, v.view(), trusted);
      return out.add(")", trusted);
    case Kind::list: case Kind::tuple: return write_array(heap, out, v, trusted);
    case Kind::dict: return write_dict(heap, out, *v.dict, trusted);
    default: heap.fail(GPTQ_E_TEMPLATE, "printing a value of type '", kind_name(v), "' is outside the supported subset");
  }
}

}  // namespace

bool all_trusted(Heap& heap, const Value& v) {
  heap.spend(1);
  if (v.is(Kind::string)) return trusted(v);
  if (v.is_array())
    return std::all_of(v.array->items, v.array->items + v.array->size, [&](const Value& x) { return all_trusted(heap, x); });
  if (!v.is(Kind::dict)) return true;
  return std::all_of(v.dict->entries, v.dict->entries + v.dict->size,
                     [&](const Entry& e) { return all_trusted(heap, e.key) && all_trusted(heap, e.value); });
}

Value to_repr(Heap& heap, const Value& v) {
  Writer out(heap);
  write_repr(heap, out, v, all_trusted(heap, v));
  return out.finish();
}

Value to_string(Heap& heap, const Value& v) {
  if (v.is(Kind::string)) return v;
  if (v.is(Kind::undefined)) return Value::of(Kind::string);
  return to_repr(heap, v);
}

std::string_view number_text(int64_t value, NumberText& buffer) {
  return {buffer, static_cast<size_t>(std::to_chars(buffer, buffer + sizeof buffer, value).ptr - buffer)};
}

std::string_view number_text(double value, NumberText& buffer) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  char* end = std::to_chars(buffer, buffer + sizeof buffer, value, plain ? std::chars_format::fixed : std::chars_format::scientific).ptr;
  if (plain && std::find(buffer, end, '.') == end) {
    *end++ = '.';
    *end++ = '0';
  }
  return {buffer, static_cast<size_t>(end - buffer)};
}

std::string_view number_text(const Heap& heap, const Value& number, NumberText& buffer) {
  const std::string_view kept = heap.kept_number(number.size);
  return kept.empty() || kept.find_first_of(".eE") != kept.npos ? number_text(number.number, buffer) : kept;
}

}  // namespace gptq::text::jinja
