// SPDX-License-Identifier: Apache-2.0
#include "base/threads.h"

#include "base/float_state.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace gptq::base {
namespace {

constexpr uint32_t spins_before_sleep = 2000;  // about 25 us

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Logical processors that share a core; cpuid leaf 0xB, where there is one.
uint32_t threads_per_core() {
#if defined(__x86_64__) || defined(__i386__)
  unsigned a, b = 0, c, d;
  if (__get_cpuid_count(0xB, 0, &a, &b, &c, &d) && (b & 0xFFFF)) return b & 0xFFFF;
#endif
  return 1;
}

uint32_t default_threads() {
  const uint32_t logical = std::thread::hardware_concurrency();
  return logical > threads_per_core() ? logical / threads_per_core() : 1;
}

constexpr bool is_open(uint32_t loop) { return loop & 1; }

}  // namespace

Pool::Pool(uint32_t threads, gptq_parallel_fn host, void* host_user, std::pmr::memory_resource* memory)
    : threads_(threads ? threads : default_threads()), host_(host), host_user_(host_user), workers_(memory) {
  if (host_) return;
  workers_.reserve(threads_ - 1);
  try {
    for (uint32_t i = 1; i < threads_; ++i) workers_.emplace_back([this] { work(); });
  } catch (...) {
    stop_workers();
    throw;
  }
}

Pool::~Pool() { stop_workers(); }

void Pool::stop_workers() {
  {
    std::lock_guard lock(sleep_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// The host's threads have a floating-point state of their own.
void Pool::run_on_host(gptq_task_fn fn, void* ctx, uint32_t count) {
  struct Task {
    gptq_task_fn fn;
    void* ctx;
  } task{fn, ctx};
  host_(host_user_, [](void* p, uint32_t i) {
    const FloatState state;
    static_cast<Task*>(p)->fn(static_cast<Task*>(p)->ctx, i);
  }, &task, count);
}

void Pool::run_tasks(gptq_task_fn fn, void* ctx, uint32_t count) {
  if (host_ && count > 1) return run_on_host(fn, ctx, count);
  std::unique_lock caller(caller_, std::defer_lock);
  if (workers_.empty() || count <= 1 || !caller.try_lock()) {
    for (uint32_t i = 0; i < count; ++i) fn(ctx, i);
    return;
  }
  fn_ = fn;
  ctx_ = ctx;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  loop_.fetch_add(1);
  if (sleeping_.load()) {
    std::lock_guard lock(sleep_);  // a worker that saw no loop is now waiting, not about to
    wake_.notify_all();
  }
  take_tasks();
  // No new worker enters a closed loop, so only those inside are waited for; one that sleeps is never needed.
  loop_.fetch_add(1);
  for (uint32_t spins = 0, n; (n = inside_.load()) != 0;)
    if (++spins < spins_before_sleep) pause(); else inside_.wait(n);
}

void Pool::take_tasks() {
  for (uint32_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) fn_(ctx_, i);
}

// The next open loop after `seen`; whatever when the pool stops.
uint32_t Pool::wait_for_loop(uint32_t seen) {
  const auto found = [&](uint32_t loop) { return (is_open(loop) && loop != seen) || stop_.load(std::memory_order_relaxed); };
  for (uint32_t spins = 0; spins < spins_before_sleep && active_.load(std::memory_order_relaxed); ++spins) {
    const uint32_t loop = loop_.load();
    if (found(loop)) return loop;
    pause();
  }
  std::unique_lock lock(sleep_);
  sleeping_.fetch_add(1);
  uint32_t loop;
  wake_.wait(lock, [&] { return found(loop = loop_.load()); });
  sleeping_.fetch_sub(1);
  return loop;
}

void Pool::work() {
  for (uint32_t seen = 0;;) {
    seen = wait_for_loop(seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    inside_.fetch_add(1);
    if (loop_.load() == seen) take_tasks();
    if (inside_.fetch_sub(1) == 1) inside_.notify_one();
  }
}

}  // namespace gptq::base
