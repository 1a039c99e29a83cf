// SPDX-License-Identifier: Apache-2.0
#include "base/threads.h"

#include <new>

#include "base/float_state.h"
#include "base/os.h"

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

constexpr uint32_t number_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }

}  // namespace

Pool::Pool(uint32_t threads, gptq_parallel_fn host, void* host_user, std::pmr::memory_resource* memory)
    : process_(os::process_id()), threads_(threads ? threads : default_threads()), host_(host), host_user_(host_user), workers_(memory) {
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

// After fork() the child has the pool and no worker: its loops run on their caller alone. Whoever waits for a worker there, joins it or
// destroys what it slept on would wait for ever. Asked once a step and by loops outside of steps, since it is a call of the system.
bool Pool::is_copy() {
  if (!copy_.load(std::memory_order_relaxed) && os::process_id() != process_) copy_.store(true, std::memory_order_relaxed);
  return copy_.load(std::memory_order_relaxed);
}

void Pool::stop_workers() {
  if (is_copy()) {
    for (std::thread& worker : workers_) ::new (static_cast<void*>(&worker)) std::thread;
    ::new (static_cast<void*>(&caller_)) std::mutex;
    ::new (static_cast<void*>(&sleep_)) std::mutex;
    ::new (static_cast<void*>(&wake_)) std::condition_variable;
    return;
  }
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
  const bool alone = copy_.load(std::memory_order_relaxed) || (!active_.load(std::memory_order_relaxed) && is_copy());
  if (workers_.empty() || count <= 1 || alone || !caller.try_lock()) {
    for (uint32_t i = 0; i < count; ++i) fn(ctx, i);
    return;
  }
  fn_.store(fn, std::memory_order_relaxed);
  ctx_.store(ctx, std::memory_order_relaxed);
  count_.store(count, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const uint64_t state = (uint64_t{number_of(state_.load(std::memory_order_relaxed)) + 1} << 32) + count;
  state_.store(state);
  if (sleeping_.load()) {
    std::lock_guard lock(sleep_);  // a worker that saw no loop is now waiting, not about to
    wake_.notify_all();
  }
  wait_for_done(count - take_tasks(state));
}

// A worker that has no task of this loop is not waited for, so one that sleeps is never needed.
void Pool::wait_for_done(uint32_t wanted) {
  for (uint32_t spins = 0, n; (n = done_.load(std::memory_order_acquire)) != wanted;)
    if (++spins < spins_before_sleep) pause(); else os::wait_while(done_, n);
}

// As many as are left of the loop in `state`, as it was seen; how many they were.
uint32_t Pool::take_tasks(uint64_t state) {
  const gptq_task_fn fn = fn_.load(std::memory_order_relaxed);
  void* const ctx = ctx_.load(std::memory_order_relaxed);
  const uint32_t count = count_.load(std::memory_order_relaxed), loop = number_of(state);
  for (uint32_t n = 0;;) {
    const uint32_t left = static_cast<uint32_t>(state);
    if (number_of(state) != loop || left == 0) return n;
    if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    fn(ctx, count - left);
    ++n;
    --state;
  }
}

// The state with the next loop after `seen`; whatever when the pool stops.
uint64_t Pool::wait_for_loop(uint32_t seen) {
  const auto found = [&](uint64_t state) { return number_of(state) != seen || stop_.load(std::memory_order_relaxed); };
  for (uint32_t spins = 0; spins < spins_before_sleep && active_.load(std::memory_order_relaxed); ++spins) {
    const uint64_t state = state_.load(std::memory_order_acquire);
    if (found(state)) return state;
    pause();
  }
  std::unique_lock lock(sleep_);
  sleeping_.fetch_add(1);
  uint64_t state;
  wake_.wait(lock, [&] { return found(state = state_.load()); });
  sleeping_.fetch_sub(1);
  return state;
}

void Pool::work() {
  for (uint32_t seen = 0;;) {
    const uint64_t state = wait_for_loop(seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    seen = number_of(state);
    const uint32_t n = take_tasks(state);
    if (!n) continue;
    done_.fetch_add(n, std::memory_order_acq_rel);
    os::wake_one(done_);
  }
}

}  // namespace gptq::base
