// SPDX-License-Identifier: Apache-2.0
// Weights as the tensors of a GPTQ checkpoint.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "converter/dialects/bit_fields.h"
#include "converter/floats.h"
#include "converter/hf/export_parts.h"

namespace gptq::convert {
namespace {

using base::fail;
using kernels::Kind;

// [n][k] codes, 32 of a row at a time, to words [packed_words(k)][n].
std::vector<uint32_t> pack_codes(const QuantizedWeight& w, uint32_t n, uint32_t k) {
  const auto rows = static_cast<uint32_t>(packed_words(k, w.bits));
  std::vector<uint32_t> words(base::to_size(base::mul(rows, n)));
  constexpr uint32_t columns_at_once = 64;  // their codes stay in the cache while the words are walked in order
  for (uint32_t n0 = 0; n0 < n; n0 += columns_at_once)
    for (uint32_t row = 0, k0 = 0; row < rows; row += w.bits, k0 += 32)
      for (uint32_t column = n0; column < std::min(n, n0 + columns_at_once); ++column) {
        uint8_t codes[32] = {};
        std::copy_n(&w.codes[uint64_t{column} * k + k0], std::min(32u, k - k0), codes);
        pack_32(codes, n, rows - row, w.bits, &words[uint64_t{row} * n + column]);
      }
  return words;
}

// Words [n_groups][packed_words(n)]. A zero of 0 has no form in v1 that all readers agree on.
std::vector<uint32_t> pack_zeros(const std::string& module, const QuantizedWeight& w, uint32_t n, bool v2_zeros) {
  const uint64_t row_words = packed_words(n, w.bits);
  const auto middle = static_cast<uint8_t>(1u << (w.bits - 1));
  std::vector<uint32_t> words(base::to_size(base::mul(row_words, w.n_groups)));
  for (uint64_t g = 0; g < w.n_groups; ++g)
    for (uint32_t n0 = 0; n0 < n; n0 += 32) {
      uint8_t zeros[32] = {};
      for (uint32_t i = 0; i < std::min(32u, n - n0); ++i) {
        const uint8_t zero = w.zeros.empty() ? middle : w.zeros[(uint64_t{n0} + i) * w.n_groups + g];
        if (zero == 0 && !v2_zeros)
          fail(GPTQ_E_UNSUPPORTED, "'", module, "' has zero points of 0, which format v1 cannot say; export with --format v2");
        zeros[i] = static_cast<uint8_t>(v2_zeros ? zero : zero - 1);
      }
      const uint64_t at = uint64_t{n0} / 32 * w.bits;
      pack_32(zeros, 1, static_cast<uint32_t>(row_words - at), w.bits, &words[g * row_words + at]);
    }
  return words;
}

bool is_infinite(uint16_t half) { return (half & 0x7C00) == 0x7C00; }

}  // namespace

bool ExportedLinear::is_reordered() const {
  for (size_t i = 0; i < g_idx.size(); ++i)
    if (!in_order(i)) return true;
  return false;
}

Dtype dtype_of(Kind kind) { return kind == Kind::f16 ? Dtype::f16 : kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32; }

PackedLinear pack_linear(const std::string& module, const QuantizedWeight& w, uint32_t n, uint32_t k, bool v2_zeros) {
  PackedLinear out{pack_codes(w, n, k), pack_zeros(module, w, n, v2_zeros), {}, false};
  out.scales.resize(w.scales.size());
  for (uint64_t row = 0; row < n; ++row)
    for (uint64_t g = 0; g < w.n_groups; ++g) {
      const float scale = w.scales[row * w.n_groups + g];
      const uint16_t half = kernels::half_from_float(scale);
      if (is_infinite(half)) fail(GPTQ_E_UNSUPPORTED, "'", module, "' has a scale beyond float16, which GPTQ checkpoints cannot say");
      out.scales_rounded |= kernels::float_from_half(half) != scale;
      out.scales[g * n + row] = half;
    }
  return out;
}

DenseWeight narrow(DenseWeight vector, Dtype dtype) {
  if (dtype == Dtype::f32) return vector;
  const std::vector<float> values = to_floats(Dtype::f32, vector.bytes);
  std::vector<uint16_t> words;
  for (const float value : values) {
    const uint16_t half = kernels::half_from_float(value);
    const auto top = static_cast<uint16_t>(kernels::bits_from_float(value) >> 16);
    words.push_back(dtype == Dtype::f16 ? half : top);
    const float again = dtype == Dtype::f16 ? kernels::float_from_half(half) : kernels::float_from_bf16(top);
    if (again != value) return vector;
  }
  const auto bytes = std::as_bytes(std::span(words));
  return {dtype == Dtype::f16 ? Kind::f16 : Kind::bf16, {bytes.begin(), bytes.end()}};
}

DenseWeight round_to_half(const std::string& module, const std::vector<float>& values) {
  std::vector<uint16_t> halves;
  for (const float value : values) {
    halves.push_back(kernels::half_from_float(value));
    if (is_infinite(halves.back())) fail(GPTQ_E_UNSUPPORTED, "'", module, "' has values beyond float16 once its quantization is undone");
  }
  const auto bytes = std::as_bytes(std::span(halves));
  return {Kind::f16, {bytes.begin(), bytes.end()}};
}

}  // namespace gptq::convert
