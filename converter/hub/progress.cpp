// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/progress.h"

#include <algorithm>
#include <cstdio>

#include "converter/system.h"

namespace gptq::convert::hub {
namespace {

constexpr double window_s = 10, redraw_s = 0.1, first_rate_s = 0.5;

std::string format(const char* pattern, double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value, unit);
  return text;
}

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

std::string bytes_text(uint64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (value >= 1e9) return format("%.1f %s", value / 1e9, "GB");
  if (value >= 1e6) return format(value >= 1e7 ? "%.0f %s" : "%.1f %s", value / 1e6, "MB");
  if (value >= 1e3) return format("%.0f %s", value / 1e3, "KB");
  return format("%.0f %s", value, bytes == 1 ? "byte" : "bytes");
}

std::string time_text(double seconds) {
  const auto s = static_cast<unsigned long long>(seconds + 0.5);
  char text[64];
  if (s < 60)
    std::snprintf(text, sizeof text, "%llu s", s);
  else if (s < 3600)
    std::snprintf(text, sizeof text, "%llu min %02llu s", s / 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%llu h %02llu min", s / 3600, s / 60 % 60);
  return text;
}

Progress::Progress(std::string program) : program_(std::move(program)), terminal_(system::errors_on_terminal()) {}
Progress::~Progress() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
}

void Progress::begin(const std::string& file, uint64_t bytes, uint64_t there) {
  file_ = file;
  file_bytes_ = bytes;
  file_fresh_ = 0;
  file_began_ = Clock::now();
  done_ += there;
  samples_.clear();
  samples_.push_back({file_began_, fresh_});
  if (there)
    say("'" + file + "': " + bytes_text(there) + " of " + bytes_text(bytes) + " are there already, the rest is loaded");
}

void Progress::add(uint64_t bytes) {
  done_ += bytes;
  fresh_ += bytes;
  file_fresh_ += bytes;
  const auto now = Clock::now();
  if (seconds_between(drawn_at_, now) < redraw_s) return;
  drawn_at_ = now;
  samples_.push_back({now, fresh_});
  while (samples_.size() > 2 && seconds_between(samples_.front().time, now) > window_s) samples_.pop_front();
  if (terminal_) draw();
}

double Progress::rate() const {
  const double seconds = seconds_between(samples_.front().time, samples_.back().time);
  return seconds > first_rate_s ? static_cast<double>(samples_.back().bytes - samples_.front().bytes) / seconds : 0;
}

void Progress::draw() {
  const uint64_t done = std::min(done_, total_);
  const double fraction = total_ ? static_cast<double>(done) / static_cast<double>(total_) : 0, bytes_a_second = rate();
  const auto full = static_cast<size_t>(fraction * 20);
  std::string text = "[" + std::string(full, '#') + std::string(20 - full, '.') + "] " +
                     std::to_string(static_cast<int>(fraction * 100)) + " % of " + bytes_text(total_);
  if (bytes_a_second > 0)
    text += ", " + bytes_text(static_cast<uint64_t>(bytes_a_second)) + "/s, " +
            time_text(static_cast<double>(total_ - done) / bytes_a_second) + " left";
  std::fprintf(stderr, "\r\x1b[K%s  %s", text.c_str(), file_.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::end() {
  const double seconds = seconds_between(file_began_, Clock::now());
  const bool telling = seconds > first_rate_s && file_fresh_ > 0;
  const std::string rate =
      bytes_text(static_cast<uint64_t>(static_cast<double>(file_fresh_) / std::max(seconds, first_rate_s))) + "/s";
  if (!terminal_) say(file_ + ", " + bytes_text(file_bytes_) + (telling ? ", " + rate : std::string()));
}

void Progress::say(std::string_view text) {
  std::fprintf(stderr, "%s%s: %.*s\n", drawn_ ? "\r\x1b[K" : "", program_.c_str(), static_cast<int>(text.size()),
               text.data());
  drawn_ = false;
}

}  // namespace gptq::convert::hub
