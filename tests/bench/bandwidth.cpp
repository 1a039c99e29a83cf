// SPDX-License-Identifier: Apache-2.0
#include "bandwidth.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gptq::bench {
namespace {

constexpr size_t bytes = size_t{384} << 20;  // several times the largest cache
constexpr size_t huge_page = size_t{2} << 20;

// Sixteen words at a time, so that the compiler keeps several vectors in flight.
uint64_t read(const uint64_t* words, size_t count) {
  uint64_t sums[16] = {};
  for (size_t i = 0; i + 16 <= count; i += 16)
    for (size_t j = 0; j < 16; ++j) sums[j] += words[i + j];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

void Bandwidth::Free::operator()(void* memory) const { ::operator delete(memory, std::align_val_t(huge_page)); }

Bandwidth::Bandwidth(uint32_t threads) : threads_(threads ? threads : std::thread::hardware_concurrency()) {
  void* memory = ::operator new(bytes, std::align_val_t(huge_page));
#if defined(__linux__)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  memory_.reset(static_cast<uint64_t*>(memory));
  std::memset(memory, 1, bytes);
}

double Bandwidth::measure() {
  const size_t part = bytes / sizeof(uint64_t) / threads_;
  std::atomic<uint64_t> sum{0};  // used, so that nothing is optimized away
  const auto work = [&](size_t i) { sum += read(memory_.get() + i * part, part); };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (uint32_t i = 1; i < threads_; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return static_cast<double>(part * threads_ * sizeof(uint64_t)) / seconds / 1e9;
}

}  // namespace gptq::bench
