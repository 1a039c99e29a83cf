// SPDX-License-Identifier: Apache-2.0
#include "converter/unpack.h"

#include <algorithm>

#include "base/checked.h"
#include "kernels/half.h"
#include "kernels/layout.h"

namespace gptq::convert {
namespace {

using base::fail;
using kernels::Matrix;

struct Loaded {
  Matrix w{};
  std::vector<std::vector<std::byte>> parts;
};

Loaded load(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot) {
  using format::fb::Role;
  Loaded out{model::check_tensor(tensor, slot), {}};
  for (const format::fb::Part* part : *tensor.parts()) {
    auto& bytes = out.parts.emplace_back(base::to_size(part->bytes()));
    reader.read_part(*part, bytes, std::pmr::get_default_resource());
    switch (part->role()) {
      case Role::codes: out.w.codes = bytes.data(); break;
      case Role::scales: out.w.scales = bytes.data(); break;
      case Role::zeros: out.w.zeros = reinterpret_cast<const uint8_t*>(bytes.data()); break;
      case Role::perm: out.w.perm = reinterpret_cast<const int32_t*>(bytes.data()); break;
    }
  }
  model::check_values(out.w, slot.name);
  return out;
}

// The column that holds each input.
std::vector<uint32_t> columns_of_inputs(const Matrix& w, std::string_view name) {
  std::vector<uint32_t> columns(w.k, UINT32_MAX);
  for (uint32_t c = 0; c < w.k_padded; ++c) {
    const int64_t input = w.perm ? w.perm[c] : c;
    if (input < 0 || input >= w.k) continue;
    if (columns[static_cast<size_t>(input)] != UINT32_MAX) fail(GPTQ_E_FORMAT, "tensor '", name, "': input ", input, " has two columns");
    columns[static_cast<size_t>(input)] = c;
  }
  for (uint32_t i = 0; i < w.k; ++i)
    if (columns[i] == UINT32_MAX) fail(GPTQ_E_FORMAT, "tensor '", name, "': input ", i, " has no column");
  return columns;
}

std::vector<int32_t> groups_of_columns(const std::vector<uint32_t>& columns, uint32_t group) {
  std::vector<int32_t> out;
  for (const uint32_t c : columns) out.push_back(static_cast<int32_t>(c / group));
  return out;
}

float scale_at(const Matrix& w, uint64_t place) {
  return w.scales_f32 ? static_cast<const float*>(w.scales)[place]
                      : kernels::float_from_half(static_cast<const uint16_t*>(w.scales)[place]);
}

void unpack_groups(const Matrix& w, uint64_t row, std::string_view name, QuantizedWeight& out) {
  const uint32_t limit = 1u << out.bits, groups = std::min(kernels::n_groups(w), out.n_groups);
  for (uint32_t g = 0; g < groups; ++g) {
    const uint64_t from = (row / 16 * kernels::n_groups(w) + g) * 16 + row % 16, to = row * out.n_groups + g;
    out.scales[to] = scale_at(w, from);
    if (!w.zeros) continue;
    if (w.zeros[from] >= limit) fail(GPTQ_E_FORMAT, "tensor '", name, "': a zero point of ", w.zeros[from], " in ", out.bits, " bits");
    out.zeros[to] = w.zeros[from];
  }
}

}  // namespace

QuantizedWeight unpack_quantized(const Matrix& w, int32_t group_size, std::string_view name, base::Pool& pool) {
  const std::vector<uint32_t> columns = columns_of_inputs(w, name);
  QuantizedWeight out;
  out.bits = kernels::bits_of(w.kind);
  out.group_size = group_size;
  const std::vector<int32_t> g_idx = groups_of_columns(columns, w.group);
  out.g_idx.assign(g_idx.begin(), g_idx.end());
  out.n_groups = count_groups(g_idx, group_size);
  out.codes.resize(base::to_size(base::mul(w.n, w.k)));
  out.scales.resize(base::to_size(base::mul(w.n, out.n_groups)));
  if (w.zeros) out.zeros.resize(out.scales.size(), static_cast<uint8_t>(1u << (out.bits - 1)));
  for (uint32_t row = 0; row < w.n; ++row) unpack_groups(w, row, name, out);
  const uint64_t tile_bytes = kernels::tile_bytes(w.kind);
  pool.run(kernels::n_blocks(w.n), [&](uint32_t block) {
    const auto* tiles = static_cast<const uint8_t*>(w.codes) + block * (w.k_padded / 64) * tile_bytes;
    for (uint32_t row = block * 16; row < std::min(w.n, block * 16 + 16); ++row)
      for (uint32_t i = 0; i < w.k; ++i)
        out.codes[uint64_t{row} * w.k + i] = static_cast<uint8_t>(
            kernels::read_code(tiles + columns[i] / 64 * tile_bytes, w.kind, row % 16, columns[i] % 64));
  });
  return out;
}

Weight unpack(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot, base::Pool& pool) {
  Loaded loaded = load(reader, tensor, slot);
  if (kernels::is_quantized(loaded.w.kind)) return unpack_quantized(loaded.w, tensor.group_size(), slot.name, pool);
  return DenseWeight{loaded.w.kind, std::move(loaded.parts[0])};
}

std::vector<int32_t> groups_of_inputs(const format::Reader& reader, const format::fb::Tensor& tensor, const model::Slot& slot) {
  Matrix w = model::check_tensor(tensor, slot);
  std::vector<int32_t> perm;
  for (const format::fb::Part* part : *tensor.parts()) {
    if (part->role() != format::fb::Role::perm) continue;
    perm.resize(w.k_padded);
    reader.read_part(*part, std::as_writable_bytes(std::span(perm)), std::pmr::get_default_resource());
    w.perm = perm.data();
  }
  return groups_of_columns(columns_of_inputs(w, slot.name), w.group);
}

// Sorted columns may end in padding that looks like a group more, so the groups follow from the group size and from who is in them.
uint32_t count_groups(const std::vector<int32_t>& g_idx, int32_t group_size) {
  const uint64_t stated = group_size > 0 ? base::divide_up(g_idx.size(), static_cast<uint64_t>(group_size)) : 1;
  const int32_t last = *std::max_element(g_idx.begin(), g_idx.end());
  return static_cast<uint32_t>(std::max<uint64_t>(stated, static_cast<uint64_t>(last) + 1));
}

std::vector<float> dequantize(const QuantizedWeight& w, uint32_t n, uint32_t k) {
  std::vector<float> out(base::to_size(base::mul(n, k)));
  const int middle = 1 << (w.bits - 1);
  for (uint64_t row = 0; row < n; ++row)
    for (uint64_t i = 0; i < k; ++i) {
      const uint64_t group = row * w.n_groups + static_cast<uint64_t>(w.g_idx[i]);
      out[row * k + i] = w.scales[group] * static_cast<float>(w.codes[row * k + i] - (w.zeros.empty() ? middle : w.zeros[group]));
    }
  return out;
}

}  // namespace gptq::convert
