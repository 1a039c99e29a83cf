// SPDX-License-Identifier: Apache-2.0
// Host memory: one resource per runtime over the host's allocator, with its byte budget. All containers of the library are
// std::pmr containers on it; big buffers are Buffers; the engine's working memory is one Buffer cut up by an Arena.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <span>
#include <utility>

#include "gptq/gptq.h"

namespace gptq::base {

// Throws bad_alloc when the host has none, Failure(BUDGET_EXCEEDED) when host_bytes_max would be passed.
class HostMemory final : public std::pmr::memory_resource {
 public:
  HostMemory(gptq_alloc_fn alloc, gptq_free_fn free, void* user, uint64_t bytes_max);
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t peak() const { return peak_.load(std::memory_order_relaxed); }
  uint64_t limit() const { return limit_; }
  // The same memory for one use, which the host is told: GPTQ_TAG_*. What comes from a part goes back to it.
  std::pmr::memory_resource* part(uint32_t tag) { return &parts_[tag]; }

 private:
  class Part final : public std::pmr::memory_resource {
   public:
    Part(HostMemory& whole, uint32_t tag) : whole_(whole), tag_(tag) {}

   private:
    void* do_allocate(size_t bytes, size_t align) override { return whole_.allocate_for(tag_, bytes, align); }
    void do_deallocate(void* p, size_t bytes, size_t align) override { whole_.deallocate_of(tag_, p, bytes, align); }
    bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
    HostMemory& whole_;
    uint32_t tag_;
  };
  void* allocate_for(uint32_t tag, size_t bytes, size_t align);
  void deallocate_of(uint32_t tag, void* p, size_t bytes, size_t align);
  void* do_allocate(size_t bytes, size_t align) override { return allocate_for(GPTQ_TAG_OTHER, bytes, align); }
  void do_deallocate(void* p, size_t bytes, size_t align) override { deallocate_of(GPTQ_TAG_OTHER, p, bytes, align); }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

  gptq_alloc_fn alloc_;
  gptq_free_fn free_;
  void* user_;
  uint64_t limit_;  // 0 = none
  std::atomic<uint64_t> bytes_{0}, peak_{0};
  Part parts_[4]{{*this, GPTQ_TAG_OTHER}, {*this, GPTQ_TAG_MODEL}, {*this, GPTQ_TAG_ENGINE}, {*this, GPTQ_TAG_QUANTIZE}};
};

// One owned block of bytes, aligned for SIMD. Not zeroed.
class Buffer {
 public:
  static constexpr size_t align = 64;
  Buffer() = default;
  Buffer(std::pmr::memory_resource* memory, size_t size)
      : memory_(memory), data_(size ? static_cast<std::byte*>(memory->allocate(size, align)) : nullptr), size_(size) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() {
    if (data_) memory_->deallocate(data_, size_, align);
  }
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  std::pmr::memory_resource* memory_ = nullptr;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

class Pool;
// The system gives memory when it is first written to, 2 MB at a time: milliseconds that a step with a budget does not have. So it is written
// to now, as much as three quarters of what is free; the rest comes when it is needed.
Buffer brought(Buffer buffer, Pool& pool);

// Cuts one block into aligned arrays. With base NULL it only adds up: run a layout function once to measure, once to place.
class Arena {
 public:
  explicit Arena(std::byte* base = nullptr) : base_(base) {}
  template <class T>
  T* take(uint64_t count) {
    const uint64_t at = used_;
    used_ = round(used_ + count * sizeof(T));
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  uint64_t used() const { return used_; }

 private:
  static uint64_t round(uint64_t n) { return (n + Buffer::align - 1) / Buffer::align * Buffer::align; }
  std::byte* base_;
  uint64_t used_ = 0;
};

}  // namespace gptq::base
