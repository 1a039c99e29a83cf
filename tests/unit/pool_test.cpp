// SPDX-License-Identifier: Apache-2.0
// Every task of a loop is done once, and before the loop returns, by workers that are near and by ones that sleep.
#include <gtest/gtest.h>

#include "base/threads.h"

namespace gptq::base {
namespace {

TEST(Pool, every_task_once) {
  for (const uint32_t threads : {2u, 3u, 5u}) {
    Pool pool(threads, nullptr, nullptr, std::pmr::get_default_resource());
    for (uint32_t round = 0; round < 6000; ++round) {
      std::vector<int> times(1 + round % 13);  // plain: a task that is late or doubled is a race as well
      const auto loop = [&] { pool.run(static_cast<uint32_t>(times.size()), [&](uint32_t i) { ++times.at(i); }); };
      if (round % 64) {
        const Pool::Active active(pool);
        loop();
      } else {
        loop();
      }
      ASSERT_EQ(times, std::vector<int>(times.size(), 1)) << threads << " threads, loop " << round;
    }
  }
}

}  // namespace
}  // namespace gptq::base
