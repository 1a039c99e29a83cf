// SPDX-License-Identifier: Apache-2.0
// The pages of the KV arena: a stack of free page numbers, and how many sessions hold each of the others.
#pragma once
#include <cstdint>

#include "base/memory.h"

namespace gptq::engine {

class KvPages {
 public:
  KvPages() = default;
  KvPages(uint32_t n_pages, base::Arena& arena)
      : free_(arena.take<uint32_t>(n_pages)), holders_(arena.take<uint32_t>(n_pages)), n_free_(n_pages), n_pages_(n_pages) {
    for (uint32_t i = 0; free_ && i < n_pages; ++i) free_[i] = n_pages - 1 - i;
  }
  uint32_t n_pages() const { return n_pages_; }
  uint32_t n_free() const { return n_free_; }
  uint32_t take() {  // n_free() > 0
    const uint32_t page = free_[--n_free_];
    holders_[page] = 1;
    return page;
  }
  // One more session holds a page that is taken. While several do, nobody writes to it.
  uint32_t share(uint32_t page) {
    ++holders_[page];
    return page;
  }
  bool shared(uint32_t page) const { return holders_[page] > 1; }
  void give_back(uint32_t page) {
    if (--holders_[page] == 0) free_[n_free_++] = page;
  }

 private:
  uint32_t* free_ = nullptr;  // [n_pages], the first n_free_ are free
  uint32_t* holders_ = nullptr;  // [n_pages]
  uint32_t n_free_ = 0, n_pages_ = 0;
};

}  // namespace gptq::engine
