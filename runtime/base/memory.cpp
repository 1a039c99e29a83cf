// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <algorithm>
#include <new>

#include "base/failure.h"
#include "base/os.h"
#include "base/threads.h"

namespace gptq::base {
namespace {

// Weights are read from end to end for every token: with 2 MiB pages, where the OS has them, that costs fewer page walks.
constexpr size_t huge_page = size_t{2} << 20;
bool wants_huge_pages(size_t size) { return size >= 4 * huge_page; }
std::align_val_t alignment(size_t size, size_t align) { return std::align_val_t(wants_huge_pages(size) ? std::max(align, huge_page) : align); }

void* GPTQ_CALL default_alloc(void*, size_t size, size_t align, uint32_t, uint32_t) {
  void* p = ::operator new(size, alignment(size, align), std::nothrow);
  if (p && wants_huge_pages(size)) os::prefer_huge_pages(p, size);
  return p;
}
void GPTQ_CALL default_free(void*, void* p, size_t size, size_t align, uint32_t, uint32_t) {
  ::operator delete(p, alignment(size, align), std::nothrow);
}

}  // namespace

HostMemory::HostMemory(gptq_alloc_fn alloc, gptq_free_fn free, void* user, uint64_t bytes_max)
    : alloc_(alloc ? alloc : default_alloc), free_(free ? free : default_free), user_(user), limit_(bytes_max) {}

void* HostMemory::allocate_for(uint32_t tag, size_t bytes, size_t align) {
  const uint64_t now = bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  void* p = limit_ && now > limit_ ? nullptr : alloc_(user_, bytes, align, GPTQ_MEM_HOST, tag);
  if (!p) {
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    if (limit_ && now > limit_) fail(GPTQ_E_BUDGET_EXCEEDED, bytes, " bytes more would pass host_bytes_max = ", limit_);
    throw std::bad_alloc();
  }
  uint64_t seen = peak();
  while (seen < now && !peak_.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {}
  return p;
}

void HostMemory::deallocate_of(uint32_t tag, void* p, size_t bytes, size_t align) {
  free_(user_, p, bytes, align, GPTQ_MEM_HOST, tag);
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

Buffer brought(Buffer buffer, Pool& pool) {
  constexpr size_t least_page = 4096;
  const uint64_t most = os::free_memory() / 4 * 3;
  const size_t size = static_cast<size_t>(std::min<uint64_t>(buffer.size(), most));
  pool.run(static_cast<uint32_t>((size + huge_page - 1) / huge_page), [&](uint32_t i) {
    for (size_t at = i * huge_page; at < std::min(size, (i + 1) * huge_page); at += least_page)
      *const_cast<volatile std::byte*>(buffer.data() + at) = std::byte{0};
  });
  return buffer;
}

}  // namespace gptq::base
