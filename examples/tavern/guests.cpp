// SPDX-License-Identifier: Apache-2.0
#include "guests.h"

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace tavern {
namespace {

constexpr const char* rule = R"~({"type": "object", "additionalProperties": false, "required": ["say", "mood", "action"], "properties": {
  "say": {"type": "string", "pattern": "^[A-Z][A-Za-z ,.'!?-]{10,70}[.!?]$"},
  "mood": {"enum": ["calm", "merry", "angry", "afraid", "sad", "curious"]},
  "action": {"enum": ["drinks", "laughs", "leans in", "looks away", "stands up", "whispers"]}}})~";

constexpr const char* scene =
    "You are a guest of an inn, late at night, in a storm. Somebody has taken the innkeeper's silver cup, and everybody talks about it. "
    "You speak one or two short sentences. Answer with JSON: what you say, your mood and what you do.";

constexpr size_t lines_heard = 2;
constexpr double pause_seconds = 2.5;

gptq_engine_params engine_params() {
  auto params = gptq::make<gptq_engine_params>();
  params.max_sessions = Guests::n;
  params.ctx_tokens = 1024;
  return params;
}

// Numbers and strings one after another.
class Writer {
 public:
  void add(uint64_t v) { text_.append(reinterpret_cast<const char*>(&v), sizeof v); }
  void add(const std::string& s) {
    add(uint64_t{s.size()});
    text_ += s;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};
class Reader {
 public:
  explicit Reader(const std::string& text) : text_(text) {}
  uint64_t number() {
    uint64_t v;
    const std::string bytes = take(sizeof v);
    bytes.copy(reinterpret_cast<char*>(&v), sizeof v);
    return v;
  }
  std::string string() { return take(number()); }

 private:
  std::string take(uint64_t size) {
    if (size > text_.size() - at_) throw std::runtime_error("the saved game is cut off");
    at_ += size;
    return text_.substr(at_ - size, size);
  }
  const std::string& text_;
  size_t at_ = 0;
};

// The value of a key, also one that is not written to its end. The rule allows no character in it that needs an escape.
std::string field(const std::string& json, const std::string& key) {
  const size_t name = json.find('"' + key + '"');
  const size_t begin = name == json.npos ? name : json.find('"', json.find(':', name));
  return begin == json.npos ? std::string() : json.substr(begin + 1, json.find('"', begin + 1) - begin - 1);
}

// How long this thread was ready to run and did not: Linux' scheduler says so. Elsewhere 0.
uint64_t waited_ns() {
  std::ifstream file("/proc/thread-self/schedstat");
  uint64_t ran = 0, waited = 0;
  file >> ran >> waited;
  return file ? waited : 0;
}

}  // namespace

Line read_line(const std::string& json) { return {field(json, "say"), field(json, "mood"), field(json, "action")}; }

Guests::Guests(const gptq::Model& model, uint64_t seed)
    : constraint_(model, GPTQ_CONSTRAINT_JSON_COMPACT, rule), engine_(model, engine_params()), seed_(seed) {
  const char* who[n][2] = {{"Mira", "the innkeeper, whose cup is gone, sharp and proud"},    {"Brom", "the smith, loud, strong and suspected by all"},
                           {"Old Tam", "the shepherd, who saw lights on the moor"},            {"Selka", "the thief, polite, quick and for once innocent"},
                           {"Father Odo", "a priest who drinks more than he should"},          {"Wren", "the bard, who makes a song of everything"}};
  for (size_t i = 0; i < n; ++i) {
    guests_[i].name = who[i][0];
    guests_[i].who = who[i][1];
    guests_[i].speaks_next = 0.7 * static_cast<double>(i);  // the first one's scene serves all
    sessions_.emplace_back(engine_);
  }
}

// Those who speak at the same time share the scene's part of the KV cache, unasked.
void Guests::begin(size_t i) {
  Guest& guest = guests_[i];
  std::string prompt = "You are " + guest.name + ", " + guest.who + ".";
  for (const std::string& line : heard_) prompt += "\n" + line;
  prompt += "\nWhat do you say, " + guest.name + "?";
  sessions_[i].set_chat({{"system", scene}, {"user", prompt}});
  gptq::Generation how;
  how.max_tokens = 160;
  how.constraint = &constraint_;
  how.sampling.temperature = 0.9f;
  how.sampling.top_p = 0.95f;
  how.sampling.dry_multiplier = 0.8f;
  how.sampling.seed = seed_ + guest.turn * n + i;
  sessions_[i].start(how);
  guest.json.clear();
  guest.speaking = true;
  ++guest.turn;
}

void Guests::listen(size_t i, double now) {
  Guest& guest = guests_[i];
  guest.json += sessions_[i].read();
  const gptq_session_info info = sessions_[i].info();
  if (info.state == GPTQ_SESSION_RUNNING) return;
  guest.speaking = false;
  guest.speaks_next = now + pause_seconds;
  ++n_lines_;
  heard_.push_back(guest.name + ": " + read_line(guest.json).say);
  if (heard_.size() > lines_heard) heard_.pop_front();
}

Step Guests::frame(uint32_t budget_us, double now) {
  for (size_t i = 0; i < n; ++i)
    if (!guests_[i].speaking && now >= guests_[i].speaks_next) begin(i);
  auto info = gptq::make<gptq_step_info>();
  const uint32_t quantum_us = quantum_us_;
  const uint64_t waited_before = waited_ns();
  engine_.step(budget_us, &info);
  n_tokens_ += info.tokens_generated;
  quantum_us_ = std::max(quantum_us_, info.next_quantum_us);
  for (size_t i = 0; i < n; ++i)
    if (guests_[i].speaking) listen(i, now);
  return {info.used_us, budget_us, quantum_us, static_cast<uint32_t>((waited_ns() - waited_before) / 1000)};
}

std::string Guests::save() const {
  Writer out;
  out.add(heard_.size());
  for (const std::string& line : heard_) out.add(line);
  for (size_t i = 0; i < n; ++i) {
    const Guest& guest = guests_[i];
    out.add(guest.json);
    out.add(uint64_t{guest.speaking});
    out.add(uint64_t{guest.turn});
    out.add(sessions_[i].save(GPTQ_SAVE_REPLAY));
  }
  return out.take();
}

// One engine has no place for both games: this one is kept as a save of its own.
void Guests::load(const std::string& saved, double now) {
  const std::string before = save();
  try {
    take(saved, now);
  } catch (...) {
    take(before, now);
    throw;
  }
}

void Guests::take(const std::string& saved, double now) {
  Reader in(saved);
  heard_.clear();
  for (uint64_t left = in.number(); left; --left) heard_.push_back(in.string());
  sessions_.clear();  // their places in the engine are needed
  for (size_t i = 0; i < n; ++i) {
    Guest& guest = guests_[i];
    guest.json = in.string();
    guest.speaking = in.number();
    guest.turn = static_cast<uint32_t>(in.number());
    guest.speaks_next = now + pause_seconds;
    sessions_.emplace_back(engine_, in.string());
  }
}

}  // namespace tavern
