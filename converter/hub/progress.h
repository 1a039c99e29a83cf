// SPDX-License-Identifier: Apache-2.0
// What a person sees of a download: a bar with rate and time left on a terminal, elsewhere a line a file.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace gptq::convert::hub {

// "1.6 GB"
std::string bytes_text(uint64_t bytes);
// "45 s", "3 min 20 s", "2 h 05 min"
std::string time_text(double seconds);

class Progress {
 public:
  explicit Progress(std::string program);  // for the lines' beginning
  ~Progress();
  Progress(const Progress&) = delete;

  void expect(uint64_t bytes) { total_ += bytes; }
  void begin(const std::string& file, uint64_t bytes, uint64_t there);  // there: of an earlier try
  void add(uint64_t bytes);
  void take_back(uint64_t bytes) { done_ -= bytes; }
  void end();
  void say(std::string_view text);

 private:
  using Clock = std::chrono::steady_clock;
  struct Sample {
    Clock::time_point time;
    uint64_t bytes;
  };
  double rate() const;  // bytes a second, of the last seconds
  void draw();

  std::string program_, file_;
  bool terminal_, drawn_ = false;
  uint64_t total_ = 0, done_ = 0, fresh_ = 0, file_fresh_ = 0, file_bytes_ = 0;
  Clock::time_point file_began_{}, drawn_at_{};
  std::deque<Sample> samples_;
};

}  // namespace gptq::convert::hub
