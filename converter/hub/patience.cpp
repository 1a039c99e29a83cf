// SPDX-License-Identifier: Apache-2.0
#include "converter/hub/patience.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>

namespace gptq::convert::hub {
namespace {

constexpr double first_wait_s = 0.5, longest_own_wait_s = 60, longest_wait_s = 300;

double number(std::string_view text) {
  unsigned value;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end != text.data() ? value : -1;
}

// Retry-After: seconds or a date. RateLimit: "api";r=0;t=55. -1 = it does not say.
double wanted_wait(const Answer& answer) {
  if (const std::string after = answer.header("retry-after"); !after.empty()) {
    const double seconds = number(after);
    return seconds >= 0 ? seconds : static_cast<double>(seconds_until(after));
  }
  const std::string limit = answer.header("ratelimit");
  const size_t at = limit.find(";t=");
  return answer.status == 429 && at != limit.npos ? number(std::string_view(limit).substr(at + 3)) : -1;
}

}  // namespace

bool Patience::again(const Answer& answer) {
  if (--left_ <= 0) return false;
  double seconds = wanted_wait(answer);
  if (seconds > longest_wait_s) {
    progress_.say(answer.text() + ": the server wants " + time_text(seconds) + " of patience, which is too long");
    return false;
  }
  if (seconds < 0) {
    // Not all who were cut off together come back together.
    static std::minstd_rand random{std::random_device{}()};
    seconds = std::min(longest_own_wait_s, first_wait_s * std::exp2(tries_ - left_ - 1)) *
              std::uniform_real_distribution(1.0, 1.25)(random);
  }
  progress_.say(answer.text() + "; again in " + (seconds < 1 ? "a moment" : time_text(seconds)));
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return true;
}

}  // namespace gptq::convert::hub
