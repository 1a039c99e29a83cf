// SPDX-License-Identifier: Apache-2.0
// A thread pool for short parallel loops. Workers sleep between steps; inside a step (Active) they wait for the next loop by
// spinning briefly before they sleep, because waking a thread costs more than most loops take.
#pragma once
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <thread>
#include <vector>

#include "gptq/gptq.h"

namespace gptq::base {

class Pool {
 public:
  // threads that compute, the caller of run() included; 0 = one per physical core. With a host job system no thread is made.
  Pool(uint32_t threads, gptq_parallel_fn host, void* host_user, std::pmr::memory_resource* memory);
  ~Pool();
  Pool(const Pool&) = delete;
  uint32_t threads() const { return threads_; }

  // Calls fn(i) once for every i < count and returns when all are done. One caller at a time computes with the workers; others
  // that come meanwhile do their loop alone. fn must not throw, unless through run_throwing.
  template <class F>
  void run(uint32_t count, F&& fn) {
    run_tasks([](void* ctx, uint32_t i) { (*static_cast<std::remove_reference_t<F>*>(ctx))(i); }, &fn, count);
  }
  // The same for loading and the like: the first exception of any task is rethrown here.
  template <class F>
  void run_throwing(uint32_t count, F&& fn) {
    std::exception_ptr first;
    std::mutex guard;
    run(count, [&](uint32_t i) {
      try {
        fn(i);
      } catch (...) {
        std::lock_guard lock(guard);
        if (!first) first = std::current_exception();
      }
    });
    if (first) std::rethrow_exception(first);
  }

  // While one of these lives, workers stay close.
  class Active {
   public:
    explicit Active(Pool& pool) : pool_(pool) {
      pool_.is_copy();
      pool_.active_.fetch_add(1, std::memory_order_relaxed);
    }
    ~Active() { pool_.active_.fetch_sub(1, std::memory_order_relaxed); }
    Active(const Active&) = delete;

   private:
    Pool& pool_;
  };

 private:
  void run_tasks(gptq_task_fn fn, void* ctx, uint32_t count);
  void run_on_host(gptq_task_fn fn, void* ctx, uint32_t count);
  bool is_copy();
  void work();
  void stop_workers();
  uint32_t take_tasks(uint64_t state);
  void wait_for_done(uint32_t wanted);
  uint64_t wait_for_loop(uint32_t seen);

  const int64_t process_;
  uint32_t threads_;
  gptq_parallel_fn host_;
  void* host_user_;
  std::pmr::vector<std::thread> workers_;
  std::mutex caller_;  // held by the loop that has the workers

  // What a worker must see to begin is one cache line: fetching each costs as long as a short task. state_ is the number of the loop and,
  // in its lower half, how many tasks are not taken yet. Who takes one has read the right fields: they change when all tasks are done.
  alignas(64) std::atomic<uint64_t> state_{0};
  std::atomic<gptq_task_fn> fn_{nullptr};
  std::atomic<void*> ctx_{nullptr};
  std::atomic<uint32_t> count_{0}, active_{0}, sleeping_{0};
  std::atomic<bool> stop_{false}, copy_{false};  // copy_: of a pool in the process that forked, whose workers are not here
  alignas(64) std::atomic<uint32_t> done_{0};  // tasks of the loop that workers have done
  alignas(64) std::mutex sleep_;
  std::condition_variable wake_;
};

}  // namespace gptq::base
