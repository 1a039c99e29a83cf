// SPDX-License-Identifier: Apache-2.0
// Every task of a loop is done once, and before the loop returns, by workers that are near and by ones that sleep.
#include <gtest/gtest.h>

#include <thread>

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

TEST(Pool, late_worker_is_left_out_for_a_while) {
  using namespace std::chrono_literals;
  Pool pool(2, nullptr, nullptr, std::pmr::get_default_resource());
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> begun = false;
  std::atomic<uint32_t> others = 0;
  Pool::Clock::time_point end;
  pool.run(2, [&](uint32_t) {
    if (std::this_thread::get_id() == caller) {
      while (!begun) std::this_thread::yield();
    } else {
      begun = true;
      std::this_thread::sleep_for(50ms);
      end = Pool::Clock::now();
    }
  });
  const auto loop = [&] {
    pool.run(50, [&](uint32_t) {
      std::this_thread::sleep_for(20us);
      if (std::this_thread::get_id() != caller) ++others;
    });
  };
  loop();
  const uint32_t at_once = others;
  if (Pool::Clock::now() - end < 12ms) {
    EXPECT_EQ(at_once, 0u);
  }
  for (int i = 0; i < 1000 && others == at_once; ++i) loop();
  EXPECT_GT(others, at_once);
}

}  // namespace
}  // namespace gptq::base
