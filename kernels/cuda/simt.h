// SPDX-License-Identifier: Apache-2.0
// What the CUDA kernels are written in: threads, barriers, shuffles, matrix products, copies. With nvcc they are the hardware's; with any
// other compiler emulator.h runs the same kernels on the CPU, so that tests need no GPU.
#pragma once
#include <stdint.h>

#include "kernels/kernels.h"

#if defined(__CUDACC__)

#include <cuda_fp16.h>

#define GPTQ_DEVICE static __device__ __forceinline__
#define GPTQ_MEMBER __device__ __forceinline__
#define GPTQ_UNROLL _Pragma("unroll")
#define GPTQ_ROLLED _Pragma("unroll 1")
#define GPTQ_KERNEL(threads) static __global__ __launch_bounds__(threads)
#define GPTQ_KERNEL_FITS(threads, blocks) static __global__ __launch_bounds__(threads, blocks)  // so many blocks a multiprocessor

namespace gptq::cuda {

struct alignas(16) Vec4 {
  uint32_t v[4];
};
struct alignas(8) Vec2 {
  uint32_t v[2];
};

GPTQ_DEVICE uint32_t thread_index() { return threadIdx.x; }
GPTQ_DEVICE uint32_t n_threads() { return blockDim.x; }
GPTQ_DEVICE uint32_t block_x() { return blockIdx.x; }
GPTQ_DEVICE uint32_t block_y() { return blockIdx.y; }
GPTQ_DEVICE uint32_t block_z() { return blockIdx.z; }
GPTQ_DEVICE uint32_t grid_x() { return gridDim.x; }
GPTQ_DEVICE uint32_t grid_y() { return gridDim.y; }
GPTQ_DEVICE void sync_block() { __syncthreads(); }
GPTQ_DEVICE void sync_warp() { __syncwarp(); }
GPTQ_DEVICE float shuffle_xor(float v, uint32_t mask) { return __shfl_xor_sync(~0u, v, mask); }
GPTQ_DEVICE uint32_t shuffle_xor(uint32_t v, uint32_t mask) { return __shfl_xor_sync(~0u, v, mask); }
GPTQ_DEVICE float shuffle(float v, uint32_t lane) { return __shfl_sync(~0u, v, lane); }
GPTQ_DEVICE uint32_t shuffle(uint32_t v, uint32_t lane) { return __shfl_sync(~0u, v, lane); }
GPTQ_DEVICE uint32_t uniform(uint32_t v) { return __shfl_sync(~0u, v, 0); }  // what a warp's lanes have alike, known as such
GPTQ_DEVICE uint32_t ballot(bool v) { return __ballot_sync(~0u, v); }  // a bit for every lane
GPTQ_DEVICE uint32_t count_bits(uint32_t v) { return __popc(v); }

// The launch's dynamic shared memory, 16-byte aligned.
GPTQ_DEVICE uint8_t* shared_memory() {
  extern __shared__ uint4 gptq_shared[];
  return reinterpret_cast<uint8_t*>(gptq_shared);
}

// Weights, which are read once: past the L1 cache.
GPTQ_DEVICE Vec4 load_once(const Vec4* p) {
  Vec4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3]) : "l"(p));
  return r;
}

// Asks for the 32 bytes to be brought to the L2 cache.
GPTQ_DEVICE void prefetch_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// What other blocks of the same launch wrote: past the L1 cache.
GPTQ_DEVICE Vec4 load_fresh(const Vec4* p) {
  const uint4 v = __ldcg(reinterpret_cast<const uint4*>(p));
  return {{v.x, v.y, v.z, v.w}};
}
GPTQ_DEVICE Vec2 load_fresh(const Vec2* p) {
  const uint2 v = __ldcg(reinterpret_cast<const uint2*>(p));
  return {{v.x, v.y}};
}

// All threads of each of n blocks come once. In the last block it is true: what the others wrote before is there for load_fresh(). `shared` is
// a word for it alone; the counter is 0 before, and again afterwards.
GPTQ_DEVICE bool last_of(uint32_t n, uint32_t* counter, uint32_t* shared) {
  __syncthreads();
  if (threadIdx.x == 0) asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(*shared) : "l"(counter), "r"(n - 1) : "memory");
  __syncthreads();
  return *shared == n - 1;
}

GPTQ_DEVICE uint32_t half2_bits(float low, float high) {
  const __half2 h = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&h);
}
GPTQ_DEVICE uint16_t half_bits(float f) { return __half_as_ushort(__float2half_rn(f)); }
GPTQ_DEVICE float half_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
// a - b, both of each pair.
GPTQ_DEVICE uint32_t half2_minus(uint32_t a, uint32_t b) {
  const __half2 difference = __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&difference);
}
// a * b, both of each pair.
GPTQ_DEVICE uint32_t half2_times(uint32_t a, uint32_t b) {
  const __half2 product = __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}
// One instruction: what is below the smallest normal number is 0.
GPTQ_DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// To two of float32's last bits.
GPTQ_DEVICE float quick_reciprocal(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
GPTQ_DEVICE float log2_of(float x) { return log2f(x); }
GPTQ_DEVICE float nearest(float x) { return rintf(x); }
GPTQ_DEVICE float exp_of(float x) { return expf(x); }
// Within 2 units in the last place; the divisor is 1 or more.
GPTQ_DEVICE float divide(float a, float b) { return __fdividef(a, b); }
GPTQ_DEVICE float sqrt_of(float x) { return sqrtf(x); }
GPTQ_DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }

// d += a b. a: 16 x 16, b: 16 x 8, float16, d: float32; a warp's fragments as mma.m16n8k16 has them (PTX ISA): with lane = 4g + t
//   a[0] (row g, k 2t, 2t+1)  a[1] (g+8, same)  a[2] (g, k 2t+8, +9)  a[3] (g+8, same);  b[0] (k 2t, 2t+1, column g)  b[1] (k 2t+8, +9, g)
//   d[0], d[1] (row g, columns 2t, 2t+1)  d[2], d[3] (row g+8, same)
// Turing has k8 alone: two of them.
GPTQ_DEVICE void mma(float d[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

// Global to shared memory, 16 bytes; there after the copies' group was waited for (copy_wait<n>: all but the last n groups) and a barrier.
GPTQ_DEVICE void copy_async(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(global) : "memory");
#else
  *static_cast<Vec4*>(shared) = *static_cast<const Vec4*>(global);
#endif
}
GPTQ_DEVICE void copy_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int n>
GPTQ_DEVICE void copy_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
#endif
}

// Programmatic dependent launch: a kernel's blocks begin as soon as all of the kernel before it began and let_next_begin(), which is the first thing
// that a kernel does. What kernels wrote is read, and anything written, after wait_for_previous(), which returns when the kernel before is done to its
// last block. A block that has nothing to do may leave without it, but never all blocks of a grid: one that was done before the kernel before it
// would let the next one go on too early. By this rule a kernel that is done means that all before it are.
GPTQ_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
GPTQ_DEVICE void let_next_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace gptq::cuda

#else
#include "kernels/cuda/emulator.h"
#endif

namespace gptq::cuda {

constexpr uint32_t warp_size = 32;

GPTQ_DEVICE uint32_t lane_index() { return thread_index() % warp_size; }
GPTQ_DEVICE uint32_t warp_index() { return thread_index() / warp_size; }
GPTQ_DEVICE float half_low(uint32_t pair) { return half_value(static_cast<uint16_t>(pair)); }
GPTQ_DEVICE float half_high(uint32_t pair) { return half_value(static_cast<uint16_t>(pair >> 16)); }
GPTQ_DEVICE uint32_t bits_of_float(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}
GPTQ_DEVICE float float_of_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
GPTQ_DEVICE float bf16_value(uint32_t bits) { return float_of_bits(bits << 16); }
// What float16 cannot hold becomes its largest.
GPTQ_DEVICE float fit_half(float v) {
  const uint32_t magnitude = bits_of_float(v) & 0x7fffffff;
  if (magnitude >= 0x7f800000 || magnitude < 0x477fe000) return v;  // infinite, not a number, or below 65504
  return v > 0 ? 65504.0f : -65504.0f;
}
GPTQ_DEVICE float silu(float x) { return divide(x, 1.0f + exp_of(-x)); }

// The sum over a warp, in every lane.
GPTQ_DEVICE float warp_sum(float v) {
  for (uint32_t mask = 16; mask; mask /= 2) v += shuffle_xor(v, mask);
  return v;
}
GPTQ_DEVICE float warp_max(float v) {
  for (uint32_t mask = 16; mask; mask /= 2) {
    const float other = shuffle_xor(v, mask);
    v = other > v ? other : v;
  }
  return v;
}

}  // namespace gptq::cuda
