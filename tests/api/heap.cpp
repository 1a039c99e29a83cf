// SPDX-License-Identifier: Apache-2.0
// Counts every call of malloc and its family in the process, where no sanitizer has them already.
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "tests/api/fixture.h"

namespace {
std::atomic<uint64_t> calls{0};
}
uint64_t gptq::test::heap_calls() { return calls.load(); }

#if defined(__GLIBC__) && !defined(GPTQ_SANITIZED)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

void* malloc(size_t size) noexcept { return ++calls, __libc_malloc(size); }
void* calloc(size_t count, size_t size) noexcept { return ++calls, __libc_calloc(count, size); }
void* realloc(void* p, size_t size) noexcept { return ++calls, __libc_realloc(p, size); }
void* memalign(size_t align, size_t size) noexcept { return ++calls, __libc_memalign(align, size); }
void* aligned_alloc(size_t align, size_t size) noexcept { return ++calls, __libc_memalign(align, size); }
int posix_memalign(void** out, size_t align, size_t size) noexcept {
  ++calls;
  *out = __libc_memalign(align, size);
  return *out ? 0 : ENOMEM;
}
void free(void* p) noexcept {
  ++calls;
  __libc_free(p);
}
}
#endif
