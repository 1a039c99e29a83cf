// SPDX-License-Identifier: Apache-2.0
// A KV cache for tests: scrambled pages, every byte that nobody wrote a NaN.
#pragma once
#include <algorithm>
#include <random>

#include "gpu.h"
#include "kernels/half.h"

namespace gptq::cuda {

struct Sequence {
  uint32_t first_position, n_rows;  // of its rows in the batch
};

class TestCache {
 public:
  static constexpr uint32_t layers = 2, layer = 1;
  std::vector<Row> rows;
  std::vector<uint32_t> pages;
  uint32_t n_positions = 0;
  KvCache kv{};  // base is the device's alone

  TestCache(uint32_t head_dim, uint32_t n_kv_heads, uint32_t page_tokens, const std::vector<Sequence>& sequences, std::mt19937& random,
            bool int8 = false) {
    for (const Sequence& s : sequences) {
      const uint32_t first_page = static_cast<uint32_t>(pages.size()), positions = s.first_position + s.n_rows;
      for (uint32_t i = 0; i < s.n_rows; ++i) rows.push_back({s.first_position + i, first_page});
      for (uint32_t i = 0; i < positions; i += page_tokens) pages.push_back(static_cast<uint32_t>(pages.size()));
      n_positions = std::max(n_positions, positions);
    }
    std::shuffle(pages.begin(), pages.end(), random);
    kv = {nullptr, 0, 0, 0, page_tokens, n_kv_heads, head_dim, int8};
    const uint64_t half = kv_half_bytes(kv);
    kv.page_stride = layers * (2 * half + 32);
    kv.layer_stride = 2 * half + 32;
    kv.value_offset = half + 16;
    memory_.assign(pages.size() * kv.page_stride / 2, 0xffff);
  }
  TestCache(const TestCache&) = delete;

  uint16_t& key(uint32_t first_page, uint32_t head, uint32_t position, uint32_t dim) {
    const uint64_t row = uint64_t{head} * kv.page_tokens + position % kv.page_tokens;
    return page(first_page, position)[row * kv_dims(kv.head_dim) + dim];
  }
  uint16_t& value(uint32_t first_page, uint32_t head, uint32_t position, uint32_t dim) {
    const uint64_t tile = uint64_t{head} * (kv.page_tokens / 16) + position % kv.page_tokens / 16;
    return page(first_page, position)[kv.value_offset / 2 + (tile * kv_dims(kv.head_dim) + dim) * 16 + position % 16];
  }
  // The same of int8, as bytes: x / scale + 128. Of every four elements the second and the third change places.
  uint8_t& key_byte(uint32_t first_page, uint32_t head, uint32_t position, uint32_t dim) {
    const uint64_t row = uint64_t{head} * kv.page_tokens + position % kv.page_tokens;
    return bytes(first_page, position)[row * kv_dims(kv.head_dim) + swapped(dim)];
  }
  uint8_t& value_byte(uint32_t first_page, uint32_t head, uint32_t position, uint32_t dim) {
    const uint64_t tile = uint64_t{head} * (kv.page_tokens / 16) + position % kv.page_tokens / 16;
    return bytes(first_page, position)[kv.value_offset + (tile * kv_dims(kv.head_dim) + dim) * 16 + swapped(position % 16)];
  }
  float& key_scale(uint32_t first_page, uint32_t head, uint32_t position) { return scale(first_page, head, position, 0); }
  float& value_exponent(uint32_t first_page, uint32_t head, uint32_t position) { return scale(first_page, head, position, kv.value_offset); }
  std::vector<uint16_t>& memory() { return memory_; }

  // Of the device: all of a batch but angles and tiles, and the cache, which may change or not.
  Batch batch(Gpu& gpu) const {
    Batch b{};
    b.rows = gpu.in(rows);
    b.pages = gpu.in(pages);
    b.n_rows = static_cast<uint32_t>(rows.size());
    b.n_positions = n_positions;
    return b;
  }
  KvCache in(Gpu& gpu) const { return at(gpu.in(memory_)); }
  KvCache out(Gpu& gpu) { return at(gpu.out(memory_)); }

 private:
  std::vector<uint16_t> memory_;

  KvCache at(uint16_t* base) const {
    KvCache moved = kv;
    moved.base = reinterpret_cast<uint8_t*>(base);
    return moved;
  }
  static uint32_t swapped(uint32_t i) { return i % 4 == 1 ? i + 1 : i % 4 == 2 ? i - 1 : i; }
  uint8_t* bytes(uint32_t first_page, uint32_t position) { return reinterpret_cast<uint8_t*>(page(first_page, position)); }
  float& scale(uint32_t first_page, uint32_t head, uint32_t position, uint64_t half) {
    const uint64_t elements = uint64_t{kv.n_kv_heads} * kv.page_tokens * kv_dims(kv.head_dim), row = uint64_t{head} * kv.page_tokens + position % kv.page_tokens;
    return reinterpret_cast<float*>(bytes(first_page, position) + half + elements)[row];
  }
  uint16_t* page(uint32_t first_page, uint32_t position) {
    const uint64_t number = pages[first_page + position / kv.page_tokens];
    return memory_.data() + (number * kv.page_stride + layer * kv.layer_stride) / 2;
  }
};

}  // namespace gptq::cuda
