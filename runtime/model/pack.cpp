// SPDX-License-Identifier: Apache-2.0
#include "model/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "kernels/half.h"
#include "kernels/layout.h"

namespace gptq::model {
namespace {

using base::fail;
using kernels::Kind;

// Which input each column holds, and how many columns make a group.
struct Columns {
  Columns(uint64_t k_padded, uint64_t group, bool in_order, std::pmr::memory_resource* memory)
      : k_padded(static_cast<uint32_t>(k_padded)), group(static_cast<uint32_t>(group)), input(base::to_size(k_padded), -1, memory),
        in_order(in_order) {}
  uint32_t k_padded, group;
  std::pmr::vector<int32_t> input;  // [k_padded], -1 = padding
  bool in_order;                    // column == input
};

// The group of every input, checked.
std::pmr::vector<uint32_t> groups_of_inputs(std::string_view name, const QuantizedWeight& w, uint32_t k, std::pmr::memory_resource* memory) {
  std::pmr::vector<uint32_t> out(k, memory);
  const uint32_t size = w.group_size > 0 ? static_cast<uint32_t>(w.group_size) : k;
  for (uint32_t i = 0; i < k; ++i) {
    const int64_t g = w.g_idx.empty() ? i / size : w.g_idx[i];
    if (g < 0 || g >= w.n_groups) fail(GPTQ_E_FORMAT, "tensor '", name, "': input ", i, " is in group ", g, ", there are ", w.n_groups);
    out[i] = static_cast<uint32_t>(g);
  }
  return out;
}

Columns ordered_columns(uint32_t k, uint64_t group, std::pmr::memory_resource* memory) {
  const uint64_t k_padded = base::round_up(k, 64);
  Columns out(k_padded, std::min(group, k_padded), true, memory);
  for (uint32_t i = 0; i < k; ++i) out.input[i] = static_cast<int32_t>(i);
  return out;
}

// Inputs stay where they are if their groups are runs of a multiple of 16. Else they are sorted by group, and every group is filled up.
Columns plan_columns(std::string_view name, const QuantizedWeight& w, uint32_t k, std::pmr::memory_resource* memory) {
  const std::pmr::vector<uint32_t> group_of = groups_of_inputs(name, w, k, memory);
  std::pmr::vector<uint32_t> members(w.n_groups, memory);
  for (const uint32_t g : group_of) ++members[g];
  const uint32_t most = *std::max_element(members.begin(), members.end());
  bool runs = true;
  for (uint32_t i = 0; i < k; ++i) runs &= group_of[i] == i / most;
  if (w.n_groups == 1) return ordered_columns(k, base::round_up(k, 64), memory);
  if (runs && most % 16 == 0) return ordered_columns(k, most, memory);

  const uint64_t group = base::round_up(most, 16), k_padded = base::round_up(base::mul(group, w.n_groups), 64);
  if (k_padded / 16 > base::round_up(k, 64))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': one of its ", w.n_groups, " groups has ", most, " of its ", k, " inputs");
  Columns out(k_padded, group, false, memory);
  std::pmr::vector<uint32_t> used(w.n_groups, memory);
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
void interleave(const std::pmr::vector<T>& values, uint32_t n, uint32_t n_groups, uint32_t groups, decltype(std::declval<Convert>()(T())) rest,
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

kernels::Matrix PackedTensor::matrix(uint32_t n, uint32_t k) const {
  return {kind, scales_f32, n, k, k_padded, group, codes.data(), scales.data(), zeros.empty() ? nullptr : zeros.data(),
          perm.empty() ? nullptr : perm.data()};
}

PackedTensor pack_quantized(std::string_view name, const QuantizedWeight& w, uint32_t n, uint32_t k, base::Pool& pool,
                            std::pmr::memory_resource* memory) {
  check_sizes(name, w, n, k);
  Columns columns = plan_columns(name, w, k, memory);
  PackedTensor out(memory);
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

std::unique_ptr<format::fb::TensorT> write_tensor(format::Writer& writer, std::string_view name, uint32_t n, uint32_t k, int32_t group_size,
                                                  const PackedTensor& packed, format::Compression codes) {
  namespace fb = format::fb;
  auto tensor = std::make_unique<fb::TensorT>();
  tensor->name = name;
  tensor->kind = static_cast<uint8_t>(packed.kind);
  tensor->n = n;
  tensor->k = k;
  tensor->k_padded = packed.k_padded;
  tensor->group = packed.group;
  tensor->scales_f32 = packed.scales_f32;
  tensor->group_size = group_size;
  const auto add = [&](fb::Role role, const auto& values, format::Compression compression) {
    if (!values.empty()) tensor->parts.push_back(writer.add(role, std::as_bytes(std::span(values)), compression));
  };
  add(fb::Role::codes, packed.codes, codes);
  add(fb::Role::scales, packed.scales, format::Compression::zstd);
  add(fb::Role::zeros, packed.zeros, format::Compression::zstd);
  add(fb::Role::perm, packed.perm, format::Compression::zstd);
  return tensor;
}

}  // namespace gptq::model
