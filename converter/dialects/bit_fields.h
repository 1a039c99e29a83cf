// SPDX-License-Identifier: Apache-2.0
// The integer packing of GPTQ checkpoints: 32 codes are `bits` words, least significant bits first, one stream.
#pragma once
#include <cstdint>

namespace gptq::convert {

// words: `bits` of them, `stride` apart; those from n_words on are not there and read as 0. out: 32 codes.
inline void unpack_32(const uint32_t* words, uint64_t stride, uint32_t n_words, uint32_t bits, uint8_t out[32]) {
  uint32_t stream[9] = {};
  for (uint32_t w = 0; w < bits && w < n_words; ++w) stream[w] = words[w * stride];
  const uint32_t mask = (1u << bits) - 1;
  for (uint32_t c = 0; c < 32; ++c) {
    const uint32_t bit = c * bits;
    const uint64_t pair = stream[bit / 32] | static_cast<uint64_t>(stream[bit / 32 + 1]) << 32;
    out[c] = static_cast<uint8_t>(pair >> bit % 32 & mask);
  }
}

// The other way round: 32 codes below 2^bits; words from n_words on are left out.
inline void pack_32(const uint8_t codes[32], uint64_t stride, uint32_t n_words, uint32_t bits, uint32_t* words) {
  uint32_t stream[9] = {};
  for (uint32_t c = 0; c < 32; ++c) {
    const uint64_t pair = static_cast<uint64_t>(codes[c]) << c * bits % 32;
    stream[c * bits / 32] |= static_cast<uint32_t>(pair);
    stream[c * bits / 32 + 1] |= static_cast<uint32_t>(pair >> 32);
  }
  for (uint32_t w = 0; w < bits && w < n_words; ++w) words[w * stride] = stream[w];
}

constexpr uint64_t packed_words(uint64_t codes, uint32_t bits) { return (codes * bits + 31) / 32; }

}  // namespace gptq::convert
