// SPDX-License-Identifier: Apache-2.0
// The primitives of simt.h on a CPU: a block's threads are fibers that run until they wait for each other. Shared memory begins poisoned,
// asynchronous copies happen when they are waited for, and the order of threads changes from block to block, so that a missing barrier shows.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "kernels/half.h"

#define GPTQ_DEVICE static inline
#define GPTQ_MEMBER inline
#define GPTQ_UNROLL
#define GPTQ_ROLLED
#define GPTQ_KERNEL(threads) static
#define GPTQ_KERNEL_FITS(threads, blocks) static

namespace gptq::cuda {

struct alignas(16) Vec4 {
  uint32_t v[4];
};
struct alignas(8) Vec2 {
  uint32_t v[2];
};

namespace emulator {

struct Grid {
  uint32_t x, y, z;
};
struct Place {  // of the running thread
  uint32_t thread, n_threads;
  Grid block, grid;
};
extern Place here;

void run(Grid grid, uint32_t threads, uint32_t shared_bytes, const std::function<void()>& kernel);
uint8_t* shared();
void block_barrier();
// All 32 lanes come, `together` runs once with what they brought, and all go on.
void warp_meeting(void* mine, void (*together)(void* const lanes[32]));
void queue_copy(void* shared, const void* global);
void commit_copies();
void wait_copies(uint32_t groups_left);

template <class T>
T exchange(T v, uint32_t from) {
  struct Mine {
    T value, result;
    uint32_t from;
  } mine{v, v, from};
  warp_meeting(&mine, [](void* const lanes[32]) {
    for (int i = 0; i < 32; ++i) {
      Mine& m = *static_cast<Mine*>(lanes[i]);
      m.result = static_cast<Mine*>(lanes[m.from % 32])->value;
    }
  });
  return mine.result;
}
void multiply(float d[4], const uint32_t a[4], const uint32_t b[2]);

}  // namespace emulator

GPTQ_DEVICE uint32_t thread_index() { return emulator::here.thread; }
GPTQ_DEVICE uint32_t n_threads() { return emulator::here.n_threads; }
GPTQ_DEVICE uint32_t block_x() { return emulator::here.block.x; }
GPTQ_DEVICE uint32_t block_y() { return emulator::here.block.y; }
GPTQ_DEVICE uint32_t block_z() { return emulator::here.block.z; }
GPTQ_DEVICE uint32_t grid_x() { return emulator::here.grid.x; }
GPTQ_DEVICE uint32_t grid_y() { return emulator::here.grid.y; }
GPTQ_DEVICE void sync_block() { emulator::block_barrier(); }
GPTQ_DEVICE void sync_warp() { emulator::warp_meeting(nullptr, nullptr); }
GPTQ_DEVICE float shuffle(float v, uint32_t lane) { return emulator::exchange(v, lane); }
GPTQ_DEVICE uint32_t shuffle(uint32_t v, uint32_t lane) { return emulator::exchange(v, lane); }
GPTQ_DEVICE float shuffle_xor(float v, uint32_t mask) { return emulator::exchange(v, thread_index() % 32 ^ mask); }
GPTQ_DEVICE uint32_t shuffle_xor(uint32_t v, uint32_t mask) { return emulator::exchange(v, thread_index() % 32 ^ mask); }
GPTQ_DEVICE uint32_t ballot(bool v) {
  uint32_t bits = uint32_t{v} << thread_index() % 32;
  for (uint32_t mask = 16; mask; mask /= 2) bits |= shuffle_xor(bits, mask);
  return bits;
}
GPTQ_DEVICE uint32_t count_bits(uint32_t v) { return static_cast<uint32_t>(__builtin_popcount(v)); }
GPTQ_DEVICE uint8_t* shared_memory() { return emulator::shared(); }
GPTQ_DEVICE Vec4 load_once(const Vec4* p) { return *p; }
GPTQ_DEVICE uint32_t uniform(uint32_t v) { return v; }
GPTQ_DEVICE void prefetch_l2(const void*) {}
GPTQ_DEVICE Vec4 load_fresh(const Vec4* p) { return *p; }
GPTQ_DEVICE Vec2 load_fresh(const Vec2* p) { return *p; }
GPTQ_DEVICE bool last_of(uint32_t n, uint32_t* counter, uint32_t* shared) {
  sync_block();
  if (thread_index() == 0) {
    *shared = *counter;
    *counter = *counter + 1 < n ? *counter + 1 : 0;
  }
  sync_block();
  return *shared == n - 1;
}
GPTQ_DEVICE uint16_t half_bits(float f) { return kernels::half_from_float(f); }
GPTQ_DEVICE float half_value(uint16_t bits) { return kernels::float_from_half(bits); }
GPTQ_DEVICE uint32_t half2_bits(float low, float high) { return half_bits(low) | uint32_t{half_bits(high)} << 16; }
GPTQ_DEVICE uint32_t half2_minus(uint32_t a, uint32_t b) {
  const auto at = [](uint32_t pair, int i) { return kernels::float_from_half(static_cast<uint16_t>(pair >> (16 * i))); };
  return half2_bits(at(a, 0) - at(b, 0), at(a, 1) - at(b, 1));
}
GPTQ_DEVICE uint32_t half2_times(uint32_t a, uint32_t b) {
  const auto at = [](uint32_t pair, int i) { return kernels::float_from_half(static_cast<uint16_t>(pair >> (16 * i))); };
  return half2_bits(at(a, 0) * at(b, 0), at(a, 1) * at(b, 1));
}
GPTQ_DEVICE float exp2_of(float x) { return std::exp2(x); }
GPTQ_DEVICE float quick_reciprocal(float x) { return 1.0f / x; }
GPTQ_DEVICE float log2_of(float x) { return std::log2(x); }
GPTQ_DEVICE float nearest(float x) { return std::nearbyint(x); }
GPTQ_DEVICE float exp_of(float x) { return std::exp(x); }
GPTQ_DEVICE float divide(float a, float b) { return a / b; }
GPTQ_DEVICE float sqrt_of(float x) { return std::sqrt(x); }
GPTQ_DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
GPTQ_DEVICE void mma(float d[4], const uint32_t a[4], const uint32_t b[2]) { emulator::multiply(d, a, b); }
GPTQ_DEVICE void copy_async(void* shared, const void* global) { emulator::queue_copy(shared, global); }
GPTQ_DEVICE void copy_commit() { emulator::commit_copies(); }
template <int n>
GPTQ_DEVICE void copy_wait() { emulator::wait_copies(n); }
GPTQ_DEVICE void wait_for_previous() {}
GPTQ_DEVICE void let_next_begin() {}

}  // namespace gptq::cuda
