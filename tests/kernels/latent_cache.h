// SPDX-License-Identifier: Apache-2.0
// A latent cache whose pages lie in random order, full of NaN (int8: of scales that are NaN) until written.
#pragma once
#include "kv_cache.h"

namespace gptq::kernels {

class TestLatentCache {
 public:
  TestLatentCache(uint32_t positions, uint32_t page_tokens, uint32_t width, uint32_t rank, KvKind kind, std::mt19937& random)
      : padded_((width + 15) / 16 * 16) {
    const uint64_t page = uint64_t{page_tokens} * (kv_bytes(kind, padded_) + (kind == KvKind::i8 ? 4 : 0)) + 64;
    pages_.resize(positions / page_tokens + 1);
    for (uint32_t p = 0; p < pages_.size(); ++p) pages_[p] = p;
    std::shuffle(pages_.begin(), pages_.end(), random);
    bytes_.assign(pages_.size() * page, std::byte{0xff});
    view = {.base = bytes_.data(),
            .pages = pages_.data(),
            .page_stride = page,
            .page_tokens = page_tokens,
            .width = width,
            .rank = rank,
            .kind = kind};
  }
  TestLatentCache(const TestLatentCache&) = delete;

  float get(uint32_t position, uint32_t d) {
    const std::byte* from = at(position, d);
    float f;
    uint16_t half;
    switch (view.kind) {
      case KvKind::f32: memcpy(&f, from, sizeof f); return f;
      case KvKind::f16: memcpy(&half, from, sizeof half); return float_from_half(half);
      default: memcpy(&f, scale(position), sizeof f); return f * static_cast<float>(static_cast<int8_t>(*from));
    }
  }
  void set(uint32_t position, const float* row) {
    float max = 0;
    for (uint32_t d = 0; d < view.width; ++d) max = std::max(max, std::fabs(row[d]));
    for (uint32_t d = 0; d < padded_; ++d) {
      const float x = d < view.width ? row[d] : 0;
      const uint16_t half = half_from_float(x);
      const auto code = static_cast<int8_t>(view.kind == KvKind::i8 ? std::nearbyint(x * (127 / max)) : 0);
      const void* from[] = {&half, &x, &code};
      memcpy(at(position, d), from[static_cast<int>(view.kind)], kv_bytes(view.kind, 1));
    }
    max /= 127;
    if (view.kind == KvKind::i8) memcpy(scale(position), &max, sizeof max);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  LatentView view;

 private:
  std::byte* page(uint32_t position) { return view.base + view.pages[position / view.page_tokens] * view.page_stride; }
  std::byte* at(uint32_t position, uint32_t d) {
    return page(position) + kv_bytes(view.kind, uint64_t{position % view.page_tokens} * padded_ + d);
  }
  std::byte* scale(uint32_t position) { return page(position) + view.page_tokens * padded_ + position % view.page_tokens * 4; }

  uint32_t padded_;
  std::vector<uint32_t> pages_;
  std::vector<std::byte> bytes_;
};

}  // namespace gptq::kernels
