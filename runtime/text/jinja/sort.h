// SPDX-License-Identifier: Apache-2.0
// A stable merge sort in the arena. std::stable_sort takes memory of its own, and std::sort breaks on an order that NaN makes inconsistent.
#pragma once
#include <algorithm>
#include <utility>

#include "text/jinja/heap.h"

namespace gptq::text::jinja {

template <class T, class Less>
void merge_sort(Heap& heap, T* items, uint32_t n, const Less& less) {
  T *from = items, *to = heap.array<T>(n);
  for (uint64_t width = 1; width < n; width *= 2) {
    heap.spend(n / 16);
    for (uint64_t start = 0; start < n; start += 2 * width) {
      const uint64_t middle = std::min<uint64_t>(start + width, n), end = std::min<uint64_t>(start + 2 * width, n);
      uint64_t a = start, b = middle;
      for (uint64_t i = start; i < end; ++i) to[i] = b >= end || (a < middle && !less(from[b], from[a])) ? from[a++] : from[b++];
    }
    std::swap(from, to);
  }
  if (from != items) std::copy(from, from + n, items);
}

}  // namespace gptq::text::jinja
