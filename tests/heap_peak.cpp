// SPDX-License-Identifier: Apache-2.0
#include "tests/heap_peak.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/sanitized.h"

namespace {
std::atomic<int64_t> live{0}, peak{0}, at_begin{0};
}
namespace gptq::test {
void heap_begin() {
  at_begin = live.load();
  peak = live.load();
}
int64_t heap_peak() { return peak - at_begin; }
}  // namespace gptq::test

#if defined(__GLIBC__) && !defined(GPTQ_SANITIZED)
#include <malloc.h>

namespace {
void* counted(void* p) {
  if (!p) return p;
  const int64_t now = live += static_cast<int64_t>(malloc_usable_size(p));
  for (int64_t seen = peak; seen < now && !peak.compare_exchange_weak(seen, now);) continue;
  return p;
}
void* aligned(std::size_t size, std::align_val_t align) {
  void* p = nullptr;
  return posix_memalign(&p, std::max(sizeof(void*), static_cast<std::size_t>(align)), size) ? nullptr : counted(p);
}
void* needed(void* p) {
  if (!p) throw std::bad_alloc();
  return p;
}
void release(void* p) {
  if (p) live -= static_cast<int64_t>(malloc_usable_size(p));
  std::free(p);
}
}  // namespace

void* operator new(std::size_t size) { return needed(counted(std::malloc(size))); }
void* operator new(std::size_t size, std::align_val_t align) { return needed(aligned(size, align)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return counted(std::malloc(size)); }
void* operator new(std::size_t size, std::align_val_t align, const std::nothrow_t&) noexcept { return aligned(size, align); }
void operator delete(void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
#endif
