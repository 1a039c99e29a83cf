// SPDX-License-Identifier: Apache-2.0
// The functions a template finds without being given them, and strftime_now, which it finds where the host passes the time.
#include <algorithm>

#include "text/jinja/native.h"
#include "text/jinja/print.h"

namespace gptq::text::jinja {
namespace {

constexpr int64_t max_range = 100'000;  // Jinja's own limit in its sandbox

Value range(Call& c) {
  const int64_t start = c.argument[1] ? c.integer(0, 0) : 0, end = c.argument[1] ? c.integer(1, 0) : c.integer(0, 0),
                step = c.integer(2, 1);
  if (step == 0) c.fail("the step must not be zero");
  const auto limit = [](int64_t v) { return std::clamp<int64_t>(v, INT64_MIN / 4, INT64_MAX / 4); };
  const int64_t span = step > 0 ? limit(end) - limit(start) : limit(start) - limit(end);
  const int64_t size = step > 0 ? step : -limit(step);
  if (span > 0 && (span - 1) / size + 1 > max_range) c.fail("more than ", max_range, " numbers");
  const int64_t n = span > 0 ? (span - 1) / size + 1 : 0;
  ArrayBuilder out(c.heap);
  for (int64_t i = 0, v = start; i < n; ++i, v += i < n ? step : 0) out.add(Value::of_int(v));
  return out.finish(Kind::range);
}

// dict and namespace take one dict and named values.
std::span<Entry> collect(Call& c) {
  if (c.positional.size() > 1) c.fail("takes one positional argument");
  if (!c.positional.empty() && !c.positional[0].is(Kind::dict)) c.fail("takes a dict, not '", kind_name(c.positional[0]), "'");
  const Dict* base = c.positional.empty() ? nullptr : c.positional[0].dict;
  const size_t n_base = base ? base->size : 0, n = n_base + c.named.size();
  Entry* entries = c.heap.array<Entry>(n);
  c.heap.spend(n);
  if (base) std::copy(base->entries, base->entries + n_base, entries);
  for (size_t i = 0; i < c.named.size(); ++i) entries[n_base + i] = {make_string(c.heap, c.names[i], true), c.named[i]};
  return {entries, n};
}

Value make_dict(Call& c) {
  const std::span<Entry> entries = collect(c);
  return make_dict(c.heap, entries.data(), static_cast<uint32_t>(entries.size()));
}

Value make_namespace(Call& c) {
  const Value unique = make_dict(c);
  Namespace* space = c.heap.make<Namespace>(std::pmr::vector<Entry>(c.heap.arena()));
  for (uint32_t i = 0; i < unique.dict->size; ++i) {
    const Entry& e = unique.dict->entries[i];
    if (!e.key.is(Kind::string)) c.fail("attribute names must be strings");
    if (e.key.size > 0 && e.key.view()[0] == '_') c.fail("an attribute must not begin with an underscore: '", e.key.view(), "'");
    space->entries.push_back(e);
  }
  Value v = Value::of(Kind::space);
  v.space = space;
  return v;
}

Value raise_exception(Call& c) {
  const Value message = to_string(c.heap, *c.argument[0]);
  c.heap.fail(GPTQ_E_TEMPLATE, "the template refuses this chat: ", message.view());
}

struct Date {
  int64_t year;
  int month, day, hour, minute, second, weekday, yearday;  // month from 1, weekday from Sunday = 0, yearday from 1
};

constexpr int days_before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
bool is_leap(int64_t y) { return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0); }

// The proleptic Gregorian calendar, counted in years that begin in March so that the leap day comes last.
Date to_date(int64_t seconds) {
  const int64_t days = seconds / 86400 - (seconds % 86400 < 0), rest = seconds - days * 86400;
  const int64_t from_0000_03_01 = days + 719468, era = from_0000_03_01 / 146097 - (from_0000_03_01 % 146097 < 0);
  const int64_t d = from_0000_03_01 - era * 146097, y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
  const int64_t of_year = d - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
  Date date{};
  date.day = static_cast<int>(of_year - (153 * m + 2) / 5 + 1);
  date.month = static_cast<int>(m < 10 ? m + 3 : m - 9);
  date.year = y + era * 400 + (date.month <= 2);
  date.hour = static_cast<int>(rest / 3600);
  date.minute = static_cast<int>(rest / 60 % 60);
  date.second = static_cast<int>(rest % 60);
  date.weekday = static_cast<int>(((days % 7) + 11) % 7);
  date.yearday = days_before[date.month - 1] + date.day + (date.month > 2 && is_leap(date.year));
  return date;
}

void write_padded(Writer& out, int64_t value, size_t width, char fill) {
  NumberText buffer;
  const std::string_view text = number_text(value, buffer);
  if (fill && text.size() < width) out.fill(width - text.size(), fill);
  out.add(text, true);
}

void write_field(Call& c, Writer& out, char field, bool unpadded, const Date& d) {
  constexpr std::string_view months[] = {"January", "February", "March",     "April",   "May",      "June",
                                         "July",    "August",   "September", "October", "November", "December"};
  constexpr std::string_view days[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
  const auto two = [&](int64_t v, char fill = '0') { write_padded(out, v, 2, unpadded ? '\0' : fill); };
  switch (field) {
    case 'Y': return write_padded(out, d.year, 1, '0');
    case 'y': return two(d.year % 100);
    case 'm': return two(d.month);
    case 'd': return two(d.day);
    case 'e': return two(d.day, ' ');
    case 'H': return two(d.hour);
    case 'I': return two((d.hour + 11) % 12 + 1);
    case 'M': return two(d.minute);
    case 'S': return two(d.second);
    case 'j': return write_padded(out, d.yearday, 3, unpadded ? '\0' : '0');
    case 'B': return out.add(months[d.month - 1], true);
    case 'b': case 'h': return out.add(months[d.month - 1].substr(0, 3), true);
    case 'A': return out.add(days[d.weekday], true);
    case 'a': return out.add(days[d.weekday].substr(0, 3), true);
    case 'p': return out.add(d.hour < 12 ? "AM" : "PM", true);
    case '%': return out.add("%", true);
    case 'F': case 'T': {
      const std::string_view parts = field == 'F' ? "Ymd" : "HMS";
      for (size_t i = 0; i < 3; ++i) {
        if (i) out.add(field == 'F' ? "-" : ":", true);
        write_field(c, out, parts[i], false, d);
      }
      return;
    }
    default: c.fail("the field %", std::string_view(&field, 1), " is outside the supported subset");
  }
}

Value strftime_now(Call& c) {
  constexpr int64_t year_1000 = -30610224000, year_10000 = 253402300800;
  if (!c.self.is_integer() || c.self.as_integer() < year_1000 || c.self.as_integer() >= year_10000)
    c.fail("`now` must be an integer: seconds since 1970, years 1000 to 9999");
  const Date date = to_date(c.self.as_integer());
  const Value format = c.string(0, "");
  Writer out(c.heap);
  for (size_t i = 0; i < format.size; ++i) {
    if (format.view()[i] != '%') {
      out.add(format, i, 1);
      continue;
    }
    const bool unpadded = i + 1 < format.size && format.view()[i + 1] == '-';
    i += unpadded ? 2 : 1;
    if (i >= format.size) c.fail("'%' at the end of the format");
    write_field(c, out, format.view()[i], unpadded, date);
  }
  return out.finish();
}

constexpr Native globals[] = {
    {"range", range, 1, false, {"start", "stop", "step"}},
    {"dict", make_dict, 0, true},
    {"namespace", make_namespace, 0, true},
    {"raise_exception", raise_exception, 1, false, {"message"}},
};
constexpr Native clock = {"strftime_now", strftime_now, 1, false, {"format"}};

}  // namespace

const Native* find_global(std::string_view name) { return find_native(globals, name); }

Value clock_at(Heap& heap, const Value& now) { return Value::of_function(heap.make<Function>(&clock, now)); }

}  // namespace gptq::text::jinja
