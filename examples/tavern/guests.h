// SPDX-License-Identifier: Apache-2.0
// The guests of the tavern: six characters who share a system prompt, one engine and a few milliseconds of every frame.
#pragma once
#include <array>
#include <deque>
#include <string>
#include <vector>

#include "gptq.hpp"

namespace tavern {

// What a guest says, as far as it is written: JSON, as a constraint has it.
struct Line {
  std::string say, mood, action;
};
Line read_line(const std::string& json);

struct Guest {
  std::string name, who;
  std::string json;           // of the line in progress, or of the last one
  double speaks_next = 0;     // seconds
  bool speaking = false;
  uint32_t turn = 0;
};

// A step's time, its budget and the longest cut of the work that the engine has announced so far.
struct Step {
  uint32_t used_us, budget_us, quantum_us;
  uint32_t waited_us;  // of the time used, for a core that the system had given to somebody else
  bool kept() const { return used_us <= budget_us + quantum_us + waited_us; }
};

class Guests {
 public:
  static constexpr size_t n = 6;
  explicit Guests(const gptq::Model& model, uint64_t seed);
  // One frame: lets those speak whose turn it is, and gives the engine its time.
  Step frame(uint32_t budget_us, double now);
  const std::array<Guest, n>& all() const { return guests_; }
  uint64_t n_tokens() const { return n_tokens_; }
  uint32_t n_lines() const { return n_lines_; }

  // Everything, also in the middle of a sentence.
  std::string save() const;
  // Throws where it is no saved game; this one goes on then.
  void load(const std::string& saved, double now);

 private:
  void take(const std::string& saved, double now);
  void begin(size_t i);
  void listen(size_t i, double now);

  gptq::Constraint constraint_;
  gptq::Engine engine_;
  std::vector<gptq::Session> sessions_;
  std::array<Guest, n> guests_;
  std::deque<std::string> heard_;  // the last lines in the room
  uint64_t seed_, n_tokens_ = 0;
  uint32_t n_lines_ = 0, quantum_us_ = 0;
};

}  // namespace tavern
