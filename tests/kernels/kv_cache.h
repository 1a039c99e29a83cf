// SPDX-License-Identifier: Apache-2.0
// A KV cache of one layer whose pages lie in random order, full of NaN until written.
#pragma once
#include <algorithm>

#include "kernel_test.h"
#include "kernels/half.h"

namespace gptq::kernels {

class TestCache {
 public:
  TestCache(uint32_t positions, uint32_t page_tokens, uint32_t n_kv_heads, uint32_t head_dim, bool f32, std::mt19937& random) {
    const uint64_t half_page = uint64_t{n_kv_heads} * page_tokens * head_dim * (f32 ? 4 : 2), n_pages = positions / page_tokens + 1;
    pages_.resize(n_pages);
    for (uint32_t p = 0; p < n_pages; ++p) pages_[p] = p;
    std::shuffle(pages_.begin(), pages_.end(), random);
    bytes_.assign(n_pages * (2 * half_page + 64), std::byte{0xff});
    view = {bytes_.data(), pages_.data(), 2 * half_page + 64, half_page + 64, page_tokens, n_kv_heads, head_dim, f32};
  }
  TestCache(const TestCache&) = delete;

  std::byte* at(uint32_t position, uint32_t head, uint32_t d, bool value) {
    const uint64_t page = view.pages[position / view.page_tokens], token = position % view.page_tokens;
    const uint64_t element = (uint64_t{head} * view.page_tokens + token) * view.head_dim + d;
    return view.base + page * view.page_stride + (value ? view.value_offset : 0) + element * (view.f32 ? 4 : 2);
  }
  float get(uint32_t position, uint32_t head, uint32_t d, bool value) {
    float f;
    uint16_t half;
    memcpy(&f, at(position, head, d, value), view.f32 ? 4 : 2);
    memcpy(&half, &f, 2);
    return view.f32 ? f : float_from_half(half);
  }
  void set(uint32_t position, uint32_t head, uint32_t d, bool value, float f) {
    const uint16_t half = half_from_float(f);
    if (view.f32) memcpy(at(position, head, d, value), &f, 4); else memcpy(at(position, head, d, value), &half, 2);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  KvView view;

 private:
  std::vector<uint32_t> pages_;
  std::vector<std::byte> bytes_;
};

}  // namespace gptq::kernels
