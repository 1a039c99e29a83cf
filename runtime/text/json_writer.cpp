// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "text/jinja/print.h"
#include "text/jinja/sort.h"
#include "text/json.h"

namespace gptq::text {
namespace {

using namespace jinja;

class JsonWriter {
 public:
  JsonWriter(Heap& heap, const JsonStyle& style, bool trusted) : heap_(heap), style_(style), out_(heap), trusted_(trusted) {}
  Value finish() { return out_.finish(); }

  void value(const Value& v, uint32_t level) {
    heap_.spend(1);
    switch (v.kind) {
      case Kind::string: return string(v.view());
      case Kind::list: case Kind::tuple: return array(*v.array, level);
      case Kind::dict: return object(*v.dict, level);
      default: return scalar(v);
    }
  }

 private:
  void add(std::string_view text) { out_.add(text, trusted_); }

  void scalar(const Value& v) {
    NumberText buffer;
    switch (v.kind) {
      case Kind::none: return add("null");
      case Kind::boolean: return add(v.boolean ? "true" : "false");
      case Kind::integer: return add(number_text(v.integer, buffer));
      case Kind::number:
        if (std::isfinite(v.number)) return add(number_text(heap_, v, buffer));
        return add(std::isnan(v.number) ? "NaN" : v.number > 0 ? "Infinity" : "-Infinity");
      default: heap_.fail(GPTQ_E_TEMPLATE, "tojson: object of type ", kind_name(v), " is not JSON serializable");
    }
  }

  void escape(uint32_t code) {
    char text[6] = {'\\', 'u'};
    for (int i = 0; i < 4; ++i) text[2 + i] = "0123456789abcdef"[code >> (12 - 4 * i) & 15];
    add({text, 6});
  }

  void character(std::string_view bytes, uint32_t code) {
    constexpr std::string_view meanings = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
    const size_t i = code < 0x80 ? meanings.find(static_cast<char>(code)) : meanings.npos;
    if (i != meanings.npos) {
      const char text[] = {'\\', names[i]};
      add({text, 2});
    } else if (code < 0x20 || (style_.ascii && code >= 0x7F && code < 0x10000)) {
      escape(code);
    } else if (style_.ascii && code >= 0x10000) {
      escape(0xD800 + ((code - 0x10000) >> 10));
      escape(0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      add(bytes);
    }
  }

  void string(std::string_view text) {
    heap_.spend_bytes(text.size());
    add("\"");
    size_t plain = 0;
    for (size_t i = 0; i < text.size();) {
      const size_t n = code_point_size(text[i]);
      const bool special = text[i] == '"' || text[i] == '\\' || static_cast<unsigned char>(text[i]) < 0x20 ||
                           (style_.ascii && text[i] > '~') || (style_.ascii && n > 1);
      if (special) {
        add(text.substr(plain, i - plain));
        character(text.substr(i, n), code_point_at(text, i));
        plain = i + n;
      }
      i += n;
    }
    add(text.substr(plain));
    add("\"");
  }

  void line(uint32_t level) {
    if (!style_.lines) return;
    add("\n");
    for (; level > 0; --level) add(style_.indent);
  }

  void array(const Array& a, uint32_t level) {
    if (a.size == 0) return add("[]");
    add("[");
    for (uint32_t i = 0; i < a.size; ++i) {
      if (i) add(style_.comma);
      line(level + 1);
      value(a.items[i], level + 1);
    }
    line(level);
    add("]");
  }

  void key(const Value& v) {
    if (v.is(Kind::string)) return string(v.view());
    if (!v.is(Kind::none) && !v.is_numeric()) heap_.fail(GPTQ_E_TEMPLATE, "tojson: a key of type ", kind_name(v));
    add("\"");
    scalar(v);
    add("\"");
  }

  void object(const Dict& d, uint32_t level) {
    if (d.size == 0) return add("{}");
    const Entry* entries = style_.sorted ? sorted(d) : d.entries;
    add("{");
    for (uint32_t i = 0; i < d.size; ++i) {
      if (i) add(style_.comma);
      line(level + 1);
      key(entries[i].key);
      add(style_.colon);
      value(entries[i].value, level + 1);
    }
    line(level);
    add("}");
  }

  const Entry* sorted(const Dict& d) {
    Entry* copy = heap_.array<Entry>(d.size);
    std::copy(d.entries, d.entries + d.size, copy);
    merge_sort(heap_, copy, d.size, [&](const Entry& a, const Entry& b) { return compare(heap_, a.key, b.key) < 0; });
    return copy;
  }

  Heap& heap_;
  const JsonStyle& style_;
  Writer out_;
  bool trusted_;
};

}  // namespace

Value write_json(Heap& heap, const Value& value, const JsonStyle& style) {
  JsonWriter writer(heap, style, all_trusted(heap, value));
  writer.value(value, 0);
  return writer.finish();
}

}  // namespace gptq::text
