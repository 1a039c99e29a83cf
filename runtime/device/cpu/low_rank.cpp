// SPDX-License-Identifier: Apache-2.0
// What adapters add to products: y += scale * B (A x), for the rows of sessions that have one. A x is made beforehand, a task of 16 of
// its elements and some rows; B's part is added block by block where the product itself is computed.
#include <algorithm>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

constexpr uint32_t rows_at_once = 32;

const kernels::LowRank* change_of(const Adapted& rows, const Product& product) {
  if (product.slot >= rows.changes.size() || !rows.changes[product.slot].a.codes) return nullptr;
  return &rows.changes[product.slot];
}

}  // namespace

// Where A x of a product is: [rows.n_rows][rank].
float* CpuDevice::reduced(const Adapted& rows, std::span<const Product> products, size_t index) const {
  uint64_t at = uint64_t{rows.first_row} * low_rank_width_;
  for (const Product& product : products.first(index))
    if (const kernels::LowRank* change = change_of(rows, product)) at += uint64_t{rows.n_rows} * change->a.n;
  return low_rank_room_ + at;
}

// Whether there is anything to add to these products, which all read the rows as they are packed.
bool CpuDevice::reduce(std::span<const Product> products) {
  const auto pieces = [](const Adapted& rows) { return (rows.n_rows + rows_at_once - 1) / rows_at_once; };
  uint64_t total = 0;
  for (const Adapted& rows : batch_.adapted)
    for (const Product& product : products)
      if (const kernels::LowRank* change = change_of(rows, product)) total += pieces(rows) * (change->a.n / 16);
  if (total == 0) return false;
  const uint32_t k = products[0].w->k;
  const float* x = finish_row(0, k);
  split(total, 1, [&](uint64_t first, uint64_t last) {
    uint64_t task = 0;
    for (const Adapted& rows : batch_.adapted)
      for (size_t i = 0; i < products.size(); ++i) {
        const kernels::LowRank* change = change_of(rows, products[i]);
        if (!change) continue;
        const uint64_t blocks = change->a.n / 16, tasks = pieces(rows) * blocks;
        for (uint64_t t = std::max(first, task); t < std::min(last, task + tasks); ++t)
          reduce_block(rows, *change, x, reduced(rows, products, i), static_cast<uint32_t>((t - task) / blocks) * rows_at_once, static_cast<uint32_t>((t - task) % blocks));
        task += tasks;
      }
  });
  return true;
}

void CpuDevice::reduce_block(const Adapted& rows, const kernels::LowRank& change, const float* x, float* y, uint32_t first, uint32_t block) const {
  const uint32_t n = change.a.n, m = std::min(rows_at_once, rows.n_rows - first);
  kernels::MatmulArgs args{};
  args.w = &change.a;
  args.x = x + uint64_t{rows.first_row + first} * change.a.k;
  args.y = y + uint64_t{first} * n;
  args.m = m;
  args.y_stride = n;
  args.first_block = block;
  args.last_block = block + 1;
  kernels_.matmul_float(args);
  for (uint32_t i = 0; i < m; ++i) {
    float* t = args.y + uint64_t{i} * n + block * 16;
    const float scale = change.scale * rows.scale;
    for (uint32_t j = 0; j < 16; ++j) t[j] *= scale;
  }
}

// Adds to the outputs first_block .. last_block - 1 of a product.
void CpuDevice::expand(std::span<const Product> products, size_t index, uint32_t first_block, uint32_t last_block) const {
  const Product& product = products[index];
  for (const Adapted& rows : batch_.adapted) {
    const kernels::LowRank* change = change_of(rows, product);
    if (!change) continue;
    kernels::MatmulArgs args{};
    args.w = &change->b;
    args.x = reduced(rows, products, index);
    args.y = product.y + uint64_t{rows.first_row} * product.w->n;
    args.m = rows.n_rows;
    args.y_stride = product.w->n;
    args.first_block = first_block;
    args.last_block = last_block;
    args.accumulate = true;
    kernels_.matmul_float(args);
  }
}

}  // namespace gptq::device
