// SPDX-License-Identifier: Apache-2.0
// What bytes of an attacker may cost before they are refused.
#pragma once
#include <algorithm>

#include "tests/heap_peak.h"
#include "tests/sanitized.h"
#include "tests/thread_time.h"

namespace gptq::test {

#ifdef GPTQ_SANITIZED
constexpr double hostile_ms_max = 2000;
#else
constexpr double hostile_ms_max = 100;
#endif
constexpr int64_t hostile_bytes_max = 1 << 20;  // and twice the input

struct Cost {
  double ms = 0;
  int64_t bytes = 0;
};

// Of this thread's time the least of three where it is too much: the first may be the machine's.
template <class F>
Cost cost_of(F&& f) {
  Cost cost;
  for (int i = 0; i < 3 && (i == 0 || cost.ms > hostile_ms_max); ++i) {
    heap_begin();
    const double begin = thread_us(), before = i == 0 ? 1e300 : cost.ms;
    f();
    cost = {std::min(before, (thread_us() - begin) / 1e3), heap_peak()};
  }
  return cost;
}

}  // namespace gptq::test
