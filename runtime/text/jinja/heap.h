// SPDX-License-Identifier: Apache-2.0
// What one rendering may use: an arena that is dropped as a whole, steps, bytes; and the place in the template it is at.
#pragma once
#include <memory_resource>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/failure.h"

namespace gptq::text::jinja {

constexpr uint32_t max_template_bytes = 256 * 1024;
constexpr uint32_t max_output_bytes = 16 * 1024 * 1024;
constexpr uint64_t max_working_bytes = 128 * 1024 * 1024;
constexpr uint64_t max_steps = 1'000'000;  // 8 instructions, 256 bytes of text, an item of a list: each is one
constexpr uint32_t max_nesting = 64;      // of syntax, of JSON, of macro calls
constexpr uint32_t max_value_depth = 72;  // JSON wrapped into lists by a template

class Heap {
 public:
  explicit Heap(std::pmr::memory_resource* memory) : upstream_(*this, memory), arena_(16 * 1024, &upstream_) {}

  template <class... Parts>
  [[noreturn]] void fail(base::Code code, const Parts&... parts) const {
    base::fail_at(code, at, parts...);
  }

  void spend(uint64_t steps) {
    if (steps > steps_) fail(GPTQ_E_TEMPLATE, "the template needs more than ", max_steps, " steps");
    steps_ -= steps;
  }
  // Work in proportion to a text or an array.
  void spend_bytes(uint64_t bytes) { spend(bytes / 256); }

  template <class T>
  T* array(uint64_t n) {
    static_assert(std::is_trivially_destructible_v<T>);
    if (n > max_working_bytes / sizeof(T)) fail_memory();
    return static_cast<T*>(arena_.allocate(n * sizeof(T) + (n == 0), alignof(T)));
  }
  // The arena never runs destructors: T must own nothing outside of it.
  template <class T, class... Args>
  T* make(Args&&... args) {
    return new (arena_.allocate(sizeof(T), alignof(T))) T{std::forward<Args>(args)...};
  }
  std::pmr::memory_resource* arena() { return &arena_; }

  uint32_t at = 0;  // byte offset in the template
  // A number of which a double may keep only a part, as its document has it: from 1.
  uint32_t keep_number(std::string_view text) { return numbers_.push_back(text), static_cast<uint32_t>(numbers_.size()); }
  std::string_view kept_number(uint32_t which) const { return which ? numbers_[which - 1] : std::string_view(); }

 private:
  // Counts the blocks that the arena takes.
  class Upstream final : public std::pmr::memory_resource {
   public:
    Upstream(Heap& heap, std::pmr::memory_resource* memory) : heap_(heap), memory_(memory) {}

   private:
    void* do_allocate(size_t bytes, size_t align) override {
      if (bytes > max_working_bytes - used_) heap_.fail_memory();
      void* p = memory_->allocate(bytes, align);
      used_ += bytes;
      return p;
    }
    void do_deallocate(void* p, size_t bytes, size_t align) override { memory_->deallocate(p, bytes, align); }
    bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

    Heap& heap_;
    std::pmr::memory_resource* memory_;
    uint64_t used_ = 0;
  };
  [[noreturn]] void fail_memory() const { fail(GPTQ_E_TEMPLATE, "the template needs more than ", max_working_bytes, " bytes of memory"); }

  Upstream upstream_;
  std::pmr::monotonic_buffer_resource arena_;
  std::pmr::vector<std::string_view> numbers_{&arena_};
  uint64_t steps_ = max_steps;
};

}  // namespace gptq::text::jinja
