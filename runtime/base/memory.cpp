// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <new>

#include "base/failure.h"

namespace gptq::base {
namespace {

void* GPTQ_CALL default_alloc(void*, size_t size, size_t align, uint32_t, uint32_t) {
  return ::operator new(size, std::align_val_t(align), std::nothrow);
}
void GPTQ_CALL default_free(void*, void* p, size_t, size_t align, uint32_t, uint32_t) {
  ::operator delete(p, std::align_val_t(align), std::nothrow);
}

}  // namespace

HostMemory::HostMemory(gptq_alloc_fn alloc, gptq_free_fn free, void* user, uint64_t bytes_max)
    : alloc_(alloc ? alloc : default_alloc), free_(free ? free : default_free), user_(user), limit_(bytes_max) {}

void* HostMemory::do_allocate(size_t bytes, size_t align) {
  const uint64_t now = bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  void* p = limit_ && now > limit_ ? nullptr : alloc_(user_, bytes, align, GPTQ_MEM_HOST, 0);
  if (!p) {
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    if (limit_ && now > limit_) fail(GPTQ_E_BUDGET_EXCEEDED, bytes, " bytes more would pass host_bytes_max = ", limit_);
    throw std::bad_alloc();
  }
  uint64_t seen = peak();
  while (seen < now && !peak_.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {}
  return p;
}

void HostMemory::do_deallocate(void* p, size_t bytes, size_t align) {
  free_(user_, p, bytes, align, GPTQ_MEM_HOST, 0);
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

}  // namespace gptq::base
