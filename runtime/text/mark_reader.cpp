// SPDX-License-Identifier: Apache-2.0
#include "text/mark_reader.h"

#include <algorithm>
#include <cstring>

namespace gptq::text {
namespace {

constexpr uint32_t bit(Mark m) { return 1u << static_cast<uint32_t>(m); }
constexpr uint32_t openers = bit(Mark::section) | bit(Mark::call);

}  // namespace

void MarkReader::start(const MarkFormat& format, bool before) {
  *this = {};
  before_ = before;
  calls_ = format.calls;
  for (size_t i = 0; i < n_marks; ++i) marks_[i] = format.mark(static_cast<Mark>(i));
}

void MarkReader::begin_here() {
  before_ = false;
  floor_ = at_ + n_open_;
  n_calls_ = 0;
  // A role's name is no answer. Only where JSON alone makes a call, what stands before it counts.
  if (calls_ != Calls::llama) answers_ = false;
}

MarkReader::Range MarkReader::known() const {
  const uint64_t begin = std::max(begin_, floor_);
  return {begin, std::max(begin, end_)};
}

void MarkReader::take_text(uint64_t bytes) {
  begin_ = known().begin + bytes;
  if (switch_waits_ && !known().size() && !call_waits_) apply_switch();
}

void MarkReader::take_call() {
  call_waits_ = false;
  ++n_calls_;
  if (switch_waits_) apply_switch();
}

void MarkReader::switch_to(Kind kind) {
  next_kind_ = kind;
  next_begin_ = at_;
  switch_waits_ = true;
  skips_space_ = true;
  answers_ = false;
  if (!known().size() && !call_waits_) apply_switch();
}

void MarkReader::apply_switch() {
  switch_waits_ = false;
  kind_ = next_kind_;
  begin_ = end_ = next_begin_;
}

// Marks that count where the reader stands.
MarkReader::Marks MarkReader::awaited() const {
  switch (phase_) {
    case Phase::text:
      if (kind_ == Kind::thinking) return bit(Mark::think_end);
      if (before_) return openers | bit(Mark::think) | bit(Mark::think_end);
      return openers | (answers_ ? 0 : bit(Mark::think));
    case Phase::section:
      return bit(Mark::call);
    case Phase::opened:
      return 0;
    case Phase::name:
      return bit(Mark::arguments) | bit(Mark::id) | (calls_ == Calls::pairs ? bit(Mark::key) | bit(Mark::call_end) : 0);
    case Phase::second_name:
      return bit(Mark::fence);
    case Phase::id:
      return bit(Mark::arguments);
    case Phase::before_arguments:
      return bit(Mark::fence);
    case Phase::parameters:
      return bit(Mark::key) | bit(Mark::call_end);
    case Phase::key:
      return bit(Mark::key_end);
    case Phase::before_value:
      return bit(Mark::value);
    case Phase::value:
      return bit(Mark::value_end);
    case Phase::behind:
      return openers | bit(Mark::call_end) | bit(Mark::section_end) | bit(Mark::think) |
             (fenced_ ? bit(Mark::fence_end) : 0);
    default:
      return 0;
  }
}

void MarkReader::feed(char c) {
  open_[n_open_++] = c;
  drain(false);
}

// Looks at what is open: where nothing longer can come of it, as a mark or as bytes.
void MarkReader::drain(bool whole) {
  const auto drop = [&](size_t n) {
    n_open_ = static_cast<uint8_t>(n_open_ - n);
    std::memmove(open_, open_ + n, n_open_);
    at_ += n;
  };
  while (n_open_) {
    const std::string_view open(open_, n_open_);
    const Marks set = awaited();
    size_t found = n_marks;
    bool partial = false;
    for (size_t i = 0; i < n_marks; ++i) {
      const std::string_view m = marks_[i];
      if (!(set >> i & 1) || m.empty() || m[0] != open[0]) continue;
      if (open.starts_with(m))
        found = i;
      else if (m.starts_with(open))
        partial = true;
    }
    if (found < n_marks) {
      const uint64_t before = at_;
      const size_t size = marks_[found].size();
      drop(size);
      if (on_mark(static_cast<Mark>(found), false)) continue;
      // It is none here, but text.
      at_ = before;
      give_up();
      at_ = before + size;
      end_ = at_;
      skips_space_ = false;
      continue;
    }
    if (partial && !whole) return;
    const char c = open_[0];
    drop(1);
    if (on_byte(c)) continue;
    // It is looked at again, as text.
    std::memmove(open_ + 1, open_, n_open_++);
    open_[0] = c;
    --at_;
    give_up();
  }
}

void MarkReader::feed_special(std::string_view name) {
  drain(true);
  for (int attempt = 0; attempt < 2; ++attempt) {
    Marks set = awaited();
    if (phase_ == Phase::text) set |= kind_ == Kind::thinking ? openers : openers | bit(Mark::think);
    for (size_t i = 0; i < n_marks; ++i)
      if (set >> i & 1 && !name.empty() && marks_[i] == name && on_mark(static_cast<Mark>(i), true)) return;
    if (phase_ == Phase::text || phase_ == Phase::behind) return;
    give_up();
  }
}

void MarkReader::end() {
  drain(true);
  if (phase_ != Phase::text && phase_ != Phase::behind) give_up();
  if (!skips_space_) end_ = at_;
}

// What was taken for a call so far is text.
void MarkReader::give_up() {
  phase_ = Phase::text;
  list_ = fenced_ = skips_space_ = false;
  if (end_ != at_) answers_ = true;
  end_ = at_;
}

void MarkReader::on_text(char c) {
  if (is_json_space(c)) {
    if (skips_space_) begin_ = end_ = at_;
    return;
  }
  skips_space_ = false;
  answers_ = true;
  end_ = at_;
}

// False where a byte ends what was taken for a call.
bool MarkReader::on_byte(char c) {
  const bool space = is_json_space(c);
  switch (phase_) {
    case Phase::text:
      if (c == '{' && calls_ == Calls::llama && kind_ == Kind::answer && !answers_) return begin_object(c, true);
      on_text(c);
      return true;
    case Phase::section:
      return space;
    case Phase::opened:
      if (space) return true;
      if (calls_ >= Calls::deepseek) return begin_name(), on_byte(c);
      if (c == '{') return begin_object(c, bare_);
      if (c == '[' && calls_ != Calls::llama && !list_) return list_ = true;
      if (calls_ == Calls::mistral && !list_) return begin_name(), on_byte(c);
      return false;
    case Phase::name:
      if (c == '{' && calls_ == Calls::mistral && finish_name()) return phase_ = Phase::before_arguments, on_byte(c);
      if (c == '\n' && calls_ == Calls::pairs) return begin_parameters(0);
      return add_to(call_.name, n_name_, name_bytes_max, c);
    case Phase::second_name:
      if (c == '\n') return finish_name() && (phase_ = Phase::before_arguments, true);
      return add_to(call_.name, n_name_, name_bytes_max, c);
    case Phase::id:
      return add_to(call_.id, n_id_, id_bytes_max, c);
    case Phase::before_arguments:
      if (space) return true;
      if (c != '{') {
        // What came so far was the kind of the call.
        if (calls_ != Calls::deepseek || fenced_ || std::string_view(call_.name) != "function") return false;
        begin_name();
        phase_ = Phase::second_name;
        return on_byte(c);
      }
      json_ = {};
      call_.arguments.begin = at_ - 1;
      phase_ = Phase::arguments;
      [[fallthrough]];
    case Phase::arguments: {
      const JsonScan::Result result = json_.feed(c);
      if (result != JsonScan::Result::done) return result == JsonScan::Result::more;
      call_.arguments.end = at_;
      return finish_call();
    }
    case Phase::object:
      return on_object(c);
    case Phase::parameters:
    case Phase::before_value:
      return space;
    case Phase::key:
      return static_cast<unsigned char>(c) >= 0x20;
    case Phase::value:
      return true;
    case Phase::in_list:
      if (space) return true;
      if (c == ',') return phase_ = Phase::opened, true;
      if (c != ']') return false;
      list_ = false;
      phase_ = Phase::behind;
      begin_ = end_ = at_;
      skips_space_ = true;
      return true;
    case Phase::behind:
      if (space) return begin_ = end_ = at_, true;
      if (c == '{' && (calls_ == Calls::tagged || calls_ == Calls::llama)) return begin_object(c, bare_);
      if (c == ';' && calls_ == Calls::llama) return phase_ = Phase::opened, true;
      phase_ = Phase::text;
      on_text(c);
      return true;
  }
  return false;
}

// False where the mark does not count.
bool MarkReader::on_mark(Mark m, bool special) {
  switch (m) {
    case Mark::think:
      if (answers_ && !special && !before_) return false;
      phase_ = Phase::text;
      switch_to(Kind::thinking);
      return true;
    case Mark::think_end:
      switch_to(Kind::answer);
      return true;
    case Mark::section:
      phase_ = Phase::section;
      return true;
    case Mark::call:
      list_ = fenced_ = false;
      bare_ = false;
      phase_ = Phase::opened;
      return true;
    case Mark::call_end:
      if (phase_ == Phase::name && !begin_parameters(mark(m).size())) return false;
      if (phase_ == Phase::parameters) {
        call_.arguments.end = special ? at_ : at_ - mark(m).size();
        return finish_call();
      }
      [[fallthrough]];
    case Mark::section_end:
    case Mark::fence_end:
      fenced_ = false;
      begin_ = end_ = at_;
      return true;
    case Mark::arguments:
      if (has_elements(calls_)) return begin_parameters(0);
      if (phase_ == Phase::name && !finish_name()) return false;
      phase_ = Phase::before_arguments;
      return true;
    case Mark::key:
      if (phase_ == Phase::name && !begin_parameters(special ? 0 : mark(m).size())) return false;
      phase_ = Phase::key;
      return true;
    case Mark::key_end:
      phase_ = mark(Mark::value).empty() ? Phase::value : Phase::before_value;
      return true;
    case Mark::value:
      phase_ = Phase::value;
      return true;
    case Mark::value_end:
      phase_ = Phase::parameters;
      return true;
    case Mark::id:
      if (!finish_name()) return false;
      phase_ = Phase::id;
      return true;
    case Mark::fence:
      if (phase_ == Phase::second_name && !finish_name()) return false;
      if (fenced_) return false;
      fenced_ = true;
      phase_ = Phase::before_arguments;
      return true;
  }
  return false;
}

void MarkReader::begin_name() {
  phase_ = Phase::name;
  n_name_ = n_id_ = 0;
  call_ = {};
}

bool MarkReader::add_to(char* to, uint8_t& n, size_t most, char c) {
  if (n == most || static_cast<unsigned char>(c) < 0x20) return false;
  to[n++] = c;
  return true;
}

// "functions.name:0" is an id that has the name in it.
bool MarkReader::finish_name() {
  std::string_view name(call_.name, n_name_);
  while (name.ends_with(' ')) name.remove_suffix(1);
  if (calls_ == Calls::kimi) {
    n_id_ = static_cast<uint8_t>(name.copy(call_.id, id_bytes_max));
    if (name.starts_with("functions.")) name.remove_prefix(10);
    const size_t digits = name.find_last_not_of("0123456789");
    if (digits != std::string_view::npos && name[digits] == ':' && digits + 1 < name.size())
      name = name.substr(0, digits);
  }
  std::memmove(call_.name, name.data(), name.size());
  n_name_ = static_cast<uint8_t>(name.size());
  call_.name[n_name_] = 0;
  return n_name_ > 0;
}

// The mark that has just been read belongs to them.
bool MarkReader::begin_parameters(size_t mark_bytes) {
  if (!finish_name()) return false;
  call_.arguments.begin = at_ - mark_bytes;
  phase_ = Phase::parameters;
  return true;
}

bool MarkReader::begin_object(char c, bool bare) {
  begin_name();
  phase_ = Phase::object;
  bare_ = bare;
  has_name_ = has_arguments_ = false;
  json_ = {};
  return json_.feed(c) == JsonScan::Result::more;
}

// An object that has a name and arguments. Where nothing but it says that it is a call, it has nothing else.
bool MarkReader::on_object(char c) {
  const uint32_t depth = json_.depth();
  const bool top = depth == 1, in_key = top && json_.in_key(), in_value = top && json_.in_string() && !in_key;
  const bool begins = top && json_.awaits_value() && !is_json_space(c);
  if (in_key && c != '"') {
    if (c == '\\') n_key_ = sizeof key_text_;
    if (n_key_ < sizeof key_text_) key_text_[n_key_] = c;
    n_key_ = static_cast<uint8_t>(std::min<size_t>(n_key_ + 1u, sizeof key_text_ + 1));
  }
  if (in_value && (key_ == Key::name || key_ == Key::id) && c != '"') {
    if (c == '\\') return false;
    if (key_ == Key::name ? !add_to(call_.name, n_name_, name_bytes_max, c) : !add_to(call_.id, n_id_, id_bytes_max, c))
      return false;
  }
  if (begins) {
    if (key_ == Key::name && (c != '"' || has_name_)) return false;
    if (key_ == Key::arguments && (c != '{' || has_arguments_)) return false;
    if (key_ == Key::id && n_id_) return false;
    if (key_ == Key::arguments) call_.arguments.begin = at_ - 1;
  }
  const JsonScan::Result result = json_.feed(c);
  if (result == JsonScan::Result::bad) return false;
  if (top && json_.in_key() && !in_key) n_key_ = 0;
  if (in_key && !json_.in_string()) {
    const std::string_view key(key_text_, std::min<size_t>(n_key_, sizeof key_text_));
    key_ = n_key_ > sizeof key_text_                   ? Key::other
           : key == "name"                             ? Key::name
           : key == "arguments" || key == "parameters" ? Key::arguments
           : key == "id"                               ? Key::id
           : key == "type"                             ? Key::type
                                                       : Key::other;
    if (bare_ && key_ == Key::other) return false;
  }
  if (in_value && !json_.in_string() && key_ == Key::name) has_name_ = true;
  if (depth == 2 && json_.depth() == 1 && key_ == Key::arguments && !has_arguments_) {
    has_arguments_ = true;
    call_.arguments.end = at_;
  }
  if (result != JsonScan::Result::done) return true;
  return has_name_ && n_name_ && (has_arguments_ || !bare_) && finish_call();
}

bool MarkReader::finish_call() {
  call_.name[n_name_] = call_.id[n_id_] = 0;
  call_waits_ = true;
  switch_to(Kind::answer);
  phase_ = list_ ? Phase::in_list : Phase::behind;
  return true;
}

}  // namespace gptq::text
