// SPDX-License-Identifier: Apache-2.0
#include "converter/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "converter/floats.h"
#include "kernels/layout.h"

namespace gptq::convert {
namespace {

using base::fail;
using kernels::Kind;

// Which input each column holds, and how many columns make a group.
struct Columns {
  uint32_t k_padded = 0, group = 0;
  std::vector<int32_t> input;  // [k_padded], -1 = padding
  bool in_order = false;       // column == input
};

// The group of every input, checked.
std::vector<uint32_t> groups_of_inputs(std::string_view name, const QuantizedWeight& w, uint32_t k) {
  std::vector<uint32_t> out(k);
  const uint32_t size = w.group_size > 0 ? static_cast<uint32_t>(w.group_size) : k;
  for (uint32_t i = 0; i < k; ++i) {
    const int64_t g = w.g_idx.empty() ? i / size : w.g_idx[i];
    if (g < 0 || g >= w.n_groups) fail(GPTQ_E_FORMAT, "tensor '", name, "': input ", i, " is in group ", g, ", there are ", w.n_groups);
    out[i] = static_cast<uint32_t>(g);
  }
  return out;
}

Columns ordered_columns(uint32_t k, uint32_t group) {
  Columns out{static_cast<uint32_t>(base::round_up(k, 64)), 0, {}, true};
  out.group = std::min(group, out.k_padded);
  out.input.assign(out.k_padded, -1);
  for (uint32_t i = 0; i < k; ++i) out.input[i] = static_cast<int32_t>(i);
  return out;
}

// Inputs stay where they are if their groups are runs of a multiple of 16. Else they are sorted by group, and every group is filled up.
Columns plan_columns(std::string_view name, const QuantizedWeight& w, uint32_t k) {
  const std::vector<uint32_t> group_of = groups_of_inputs(name, w, k);
  std::vector<uint32_t> members(w.n_groups);
  for (const uint32_t g : group_of) ++members[g];
  const uint32_t most = *std::max_element(members.begin(), members.end());
  bool runs = true;
  for (uint32_t i = 0; i < k; ++i) runs &= group_of[i] == i / most;
  if (w.n_groups == 1) return ordered_columns(k, static_cast<uint32_t>(base::round_up(k, 64)));
  if (runs && most % 16 == 0) return ordered_columns(k, most);

  const uint64_t group = base::round_up(most, 16), k_padded = base::round_up(base::mul(group, w.n_groups), 64);
  if (k_padded / 16 > base::round_up(k, 64))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': one of its ", w.n_groups, " groups has ", most, " of its ", k, " inputs");
  Columns out{static_cast<uint32_t>(k_padded), static_cast<uint32_t>(group), {}, false};
  out.input.assign(out.k_padded, -1);
  std::vector<uint32_t> used(w.n_groups);
  for (uint32_t i = 0; i < k; ++i) out.input[group_of[i] * group + used[group_of[i]]++] = static_cast<int32_t>(i);
  return out;
}

Kind kind_of(uint32_t bits) { return bits == 2 ? Kind::q2 : bits == 3 ? Kind::q3 : bits == 4 ? Kind::q4 : Kind::q8; }

void check_sizes(std::string_view name, const QuantizedWeight& w, uint32_t n, uint32_t k) {
  const uint64_t groups = base::mul(n, w.n_groups);
  const bool bits = w.bits == 2 || w.bits == 3 || w.bits == 4 || w.bits == 8;
  if (!bits || w.n_groups < 1 || w.n_groups > k || w.codes.size() != base::mul(n, k) || w.scales.size() != groups ||
      (!w.zeros.empty() && w.zeros.size() != groups) || (!w.g_idx.empty() && w.g_idx.size() != k))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': its parts do not fit ", n, " x ", k, " in ", w.n_groups, " groups");
}

// values [n][n_groups] -> [n/16 up][groups][16], filled up with `rest`.
template <class T, class Convert>
void interleave(const std::vector<T>& values, uint32_t n, uint32_t n_groups, uint32_t groups, decltype(std::declval<Convert>()(T())) rest,
                std::byte* out, Convert&& convert) {
  using Out = decltype(convert(T()));
  for (uint64_t row = 0; row < uint64_t{kernels::n_blocks(n)} * 16; ++row)
    for (uint64_t g = 0; g < groups; ++g) {
      const Out value = row < n && g < n_groups ? convert(values[row * n_groups + g]) : rest;
      std::memcpy(out + ((row / 16 * groups + g) * 16 + row % 16) * sizeof(Out), &value, sizeof value);
    }
}

void pack_scales(const QuantizedWeight& w, uint32_t n, uint32_t groups, PackedTensor& out) {
  out.scales_f32 =
      !std::all_of(w.scales.begin(), w.scales.end(), [](float f) { return kernels::float_from_half(kernels::half_from_float(f)) == f; });
  out.scales.resize(base::to_size(base::mul(kernels::n_blocks(n), groups, 16, out.scales_f32 ? 4 : 2)));
  if (out.scales_f32) interleave(w.scales, n, w.n_groups, groups, 0.0f, out.scales.data(), [](float f) { return f; });
  else interleave(w.scales, n, w.n_groups, groups, uint16_t{0}, out.scales.data(), kernels::half_from_float);
}

void pack_zeros(const QuantizedWeight& w, uint32_t n, uint32_t groups, PackedTensor& out) {
  const auto middle = static_cast<uint8_t>(1u << (w.bits - 1));
  if (std::all_of(w.zeros.begin(), w.zeros.end(), [&](uint8_t z) { return z == middle; })) return;
  out.zeros.resize(base::to_size(base::mul(kernels::n_blocks(n), groups, 16)));
  interleave(w.zeros, n, w.n_groups, groups, middle, reinterpret_cast<std::byte*>(out.zeros.data()), [](uint8_t z) { return z; });
}

// Writes the tiles of 16 rows.
void pack_block(const QuantizedWeight& w, const Columns& columns, uint32_t n, uint32_t k, uint32_t block, PackedTensor& out) {
  const auto middle = static_cast<uint8_t>(1u << (w.bits - 1));
  const uint32_t groups = (columns.k_padded + columns.group - 1) / columns.group, tile_bytes = kernels::tile_bytes(out.kind);
  auto* tile = reinterpret_cast<uint8_t*>(out.codes.data()) + uint64_t{block} * (columns.k_padded / 64) * tile_bytes;
  for (uint32_t first = 0; first < columns.k_padded; first += 64, tile += tile_bytes) {
    uint8_t codes[16][64];
    for (uint32_t r = 0; r < 16; ++r) {
      const uint64_t row = uint64_t{block} * 16 + r;
      const uint8_t* source = row < n ? w.codes.data() + row * k : nullptr;
      for (uint32_t c = 0; c < 64; ++c) {
        const int32_t input = columns.input[first + c];
        if (source && input >= 0) codes[r][c] = source[input];
        else codes[r][c] = out.zeros.empty() ? middle : out.zeros[(uint64_t{block} * groups + (first + c) / columns.group) * 16 + r];
      }
    }
    kernels::pack_tile(out.kind, codes, tile);
  }
}

}  // namespace

PackedTensor pack_quantized(std::string_view name, const QuantizedWeight& w, uint32_t n, uint32_t k, base::Pool& pool) {
  check_sizes(name, w, n, k);
  Columns columns = plan_columns(name, w, k);
  PackedTensor out;
  out.kind = kind_of(w.bits);
  out.k_padded = columns.k_padded;
  out.group = columns.group;
  const uint32_t groups = (columns.k_padded + columns.group - 1) / columns.group;
  pack_scales(w, n, groups, out);
  pack_zeros(w, n, groups, out);
  out.codes.resize(base::to_size(base::mul(kernels::n_blocks(n), columns.k_padded / 64, kernels::tile_bytes(out.kind))));
  pool.run(kernels::n_blocks(n), [&](uint32_t block) { pack_block(w, columns, n, k, block, out); });
  if (!columns.in_order) out.perm = std::move(columns.input);
  return out;
}

PackedTensor pack_dense(std::string_view name, DenseWeight&& weight, uint32_t n, uint32_t k) {
  if (weight.bytes.size() != base::mul(n, k, kernels::bits_of(weight.kind) / 8))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': ", weight.bytes.size(), " bytes do not fit ", n, " x ", k);
  PackedTensor out;
  out.kind = weight.kind;
  out.k_padded = k;
  out.codes = std::move(weight.bytes);
  return out;
}

PackedTensor pack_vector(std::string_view name, const DenseWeight& weight, uint32_t n) {
  if (weight.bytes.size() != base::mul(n, kernels::bits_of(weight.kind) / 8))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': ", weight.bytes.size(), " bytes do not fit ", n, " values");
  const Dtype dtype = weight.kind == Kind::f16 ? Dtype::f16 : weight.kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32;
  const std::vector<float> values = to_floats(dtype, weight.bytes);
  PackedTensor out;
  out.k_padded = 1;
  out.codes.resize(values.size() * 4);
  std::memcpy(out.codes.data(), values.data(), out.codes.size());
  return out;
}

}  // namespace gptq::convert
