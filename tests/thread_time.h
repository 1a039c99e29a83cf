// SPDX-License-Identifier: Apache-2.0
// What this thread has computed, so that other work on the machine counts less; the clock's time where the system does not say.
#pragma once
#include <chrono>
#include <ctime>

namespace gptq::test {

inline double thread_us() {
#ifdef CLOCK_THREAD_CPUTIME_ID
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) / 1e3;
#else
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

}  // namespace gptq::test
