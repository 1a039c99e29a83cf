// SPDX-License-Identifier: Apache-2.0
#include "converter/gguf/gguf_dequantize.h"

#include <cstring>
#include <string>

#include "base/failure.h"
#include "kernels/half.h"

namespace gptq::convert {
namespace {

float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return kernels::float_from_half(bits);
}

int low(uint8_t byte) { return byte & 15; }
int high(uint8_t byte) { return byte >> 4; }

// ---- blocks of 32: float16 scale (and minimum), then codes; the low nibbles are the first 16 weights ----

void decode_q4_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[2 + j]) - 8);
    out[j + 16] = d * static_cast<float>(high(block[2 + j]) - 8);
  }
}

void decode_q4_1(const uint8_t* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[4 + j])) + m;
    out[j + 16] = d * static_cast<float>(high(block[4 + j])) + m;
  }
}

// Bit j of the 32 high bits is the fifth bit of weight j.
int fifth_bit(const uint8_t* bits, int j) { return (bits[j / 8] >> j % 8 & 1) << 4; }

void decode_q5_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((low(block[6 + j]) | fifth_bit(block + 2, j)) - 16);
    out[j + 16] = d * static_cast<float>((high(block[6 + j]) | fifth_bit(block + 2, j + 16)) - 16);
  }
}

void decode_q5_1(const uint8_t* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(low(block[8 + j]) | fifth_bit(block + 4, j)) + m;
    out[j + 16] = d * static_cast<float>(high(block[8 + j]) | fifth_bit(block + 4, j + 16)) + m;
  }
}

void decode_q8_0(const uint8_t* block, float* out) {
  const float d = half_at(block);
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
}

// ---- blocks of 256 with scales of their own scales ----

struct ScaleAndMin {
  float scale, min;
};

// Q4_K and Q5_K: 8 pairs of 6-bit numbers in 12 bytes; the upper bits of pairs 4 to 7 sit above those of 0 to 3.
ScaleAndMin packed_pair(const uint8_t* block, int j) {
  const float d = half_at(block), min = half_at(block + 2);
  const uint8_t* s = block + 4;
  const int scale = j < 4 ? s[j] & 63 : low(s[j + 4]) | s[j - 4] >> 6 << 4;
  const int lowest = j < 4 ? s[j + 4] & 63 : high(s[j + 4]) | s[j] >> 6 << 4;
  return {d * static_cast<float>(scale), min * static_cast<float>(lowest)};
}

void decode_q4_k(const uint8_t* block, float* out) {
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = packed_pair(block, j);
    const uint8_t* codes = block + 16 + j / 2 * 32;
    for (int i = 0; i < 32; ++i) out[32 * j + i] = s.scale * static_cast<float>(j % 2 ? high(codes[i]) : low(codes[i])) - s.min;
  }
}

void decode_q5_k(const uint8_t* block, float* out) {
  for (int j = 0; j < 8; ++j) {
    const ScaleAndMin s = packed_pair(block, j);
    const uint8_t *fifth = block + 16, *codes = block + 48 + j / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int code = (j % 2 ? high(codes[i]) : low(codes[i])) | (fifth[i] >> j & 1) << 4;
      out[32 * j + i] = s.scale * static_cast<float>(code) - s.min;
    }
  }
}

// 16 signed scales. In each half, 32 high-bit bytes hold two bits for four runs of 32 weights.
void decode_q6_k(const uint8_t* block, float* out) {
  const float d = half_at(block + 208);
  for (int run = 0; run < 8; ++run) {
    const int half = run / 4, quarter = run % 4;
    const uint8_t *lower = block + 64 * half + 32 * (quarter % 2), *upper = block + 128 + 32 * half, *scales = block + 192;
    for (int i = 0; i < 32; ++i) {
      const int code = (quarter < 2 ? low(lower[i]) : high(lower[i])) | (upper[i] >> 2 * quarter & 3) << 4;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[2 * run + i / 16]));
      out[32 * run + i] = scale * static_cast<float>(code - 32);
    }
  }
}

constexpr GgufType supported[] = {
    {0, "F32", 1, 4, nullptr},         {1, "F16", 1, 2, nullptr},         {30, "BF16", 1, 2, nullptr},
    {2, "Q4_0", 32, 18, decode_q4_0},  {3, "Q4_1", 32, 20, decode_q4_1},  {6, "Q5_0", 32, 22, decode_q5_0},
    {7, "Q5_1", 32, 24, decode_q5_1},  {8, "Q8_0", 32, 34, decode_q8_0},  {12, "Q4_K", 256, 144, decode_q4_k},
    {13, "Q5_K", 256, 176, decode_q5_k}, {14, "Q6_K", 256, 210, decode_q6_k},
};

struct OtherType {
  uint32_t id;
  std::string_view name;
};
constexpr OtherType others[] = {
    {9, "Q8_1"},     {10, "Q2_K"},   {11, "Q3_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"},  {21, "IQ3_S"},  {22, "IQ2_S"},  {23, "IQ4_XS"}, {24, "I8"},     {25, "I16"},    {26, "I32"},     {27, "I64"},
    {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},  {35, "TQ2_0"}, {39, "MXFP4"},
};

}  // namespace

const GgufType& find_gguf_type(uint32_t id, std::string_view tensor) {
  for (const GgufType& type : supported)
    if (type.id == id) return type;
  std::string name = "number " + std::to_string(id), known;
  for (const OtherType& type : others)
    if (type.id == id) name = type.name;
  for (const GgufType& type : supported) known += (known.empty() ? "" : ", ") + std::string(type.name);
  base::fail(GPTQ_E_UNSUPPORTED, "tensor '", tensor, "' has type ", name, ", which is not supported; use a file of these types: ", known);
}

}  // namespace gptq::convert
