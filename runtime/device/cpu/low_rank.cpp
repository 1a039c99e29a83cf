// SPDX-License-Identifier: Apache-2.0
// What adapters add to products: y += scale * B (A x), for the rows of sessions that have one. The tasks of the product itself do it: each
// first takes pieces of A x as long as there are any, then computes its blocks of W x, and adds its blocks of B's part once all pieces are
// done. A loop of its own for A x would cost more than A x. Where quantized matrices read int8 activations, adapters are in 8 bits as well.
#include <algorithm>
#include <thread>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

constexpr uint32_t rows_at_once = 32;  // of a piece of A x
constexpr uint32_t spins_before_yield = 1000;

uint32_t pieces_of(const Adapted& rows) { return (rows.n_rows + rows_at_once - 1) / rows_at_once; }

const kernels::LowRank* change_of(const Adapted& rows, const Product& product) {
  if (product.slot >= rows.changes.size() || !rows.changes[product.slot].a.codes) return nullptr;
  return &rows.changes[product.slot];
}

}  // namespace

uint32_t CpuDevice::ranks_at_once() const { return in_8_bits() ? 8 : 16; }  // of a piece of A x
bool CpuDevice::in_8_bits() const { return scratch_.activations == Activations::int8; }
uint32_t CpuDevice::parts_of(const kernels::LowRank& change) const { return (rank_of(change) + ranks_at_once() - 1) / ranks_at_once(); }
uint32_t CpuDevice::rank_of(const kernels::LowRank& change) const { return in_8_bits() ? change.rank8 : change.a.n; }

// Where A x of a product is: [rows.n_rows][rank].
float* CpuDevice::reduced(const Adapted& rows, std::span<const Product> products, size_t index) const {
  uint64_t at = uint64_t{rows.first_row} * low_rank_width_;
  for (const Product& product : products.first(index))
    if (const kernels::LowRank* change = change_of(rows, product)) at += uint64_t{rows.n_rows} * rank_of(*change);
  return low_rank_room_ + at;
}

uint32_t CpuDevice::count_reductions(std::span<const Product> products) const {
  uint32_t count = 0;
  for (const Adapted& rows : batch_.adapted)
    for (const Product& product : products)
      if (const kernels::LowRank* change = change_of(rows, product)) count += pieces_of(rows) * parts_of(*change);
  return count;
}

void CpuDevice::reduce_one(std::span<const Product> products, const float* x, uint32_t number) const {
  for (const Adapted& rows : batch_.adapted)
    for (size_t i = 0; i < products.size(); ++i) {
      const kernels::LowRank* change = change_of(rows, products[i]);
      if (!change) continue;
      const uint32_t parts = parts_of(*change), all = pieces_of(rows) * parts;
      if (number < all) {
        const uint32_t first = number % parts * ranks_at_once();
        return reduce_rows(rows, *change, x, reduced(rows, products, i), number / parts * rows_at_once, first, std::min(first + ranks_at_once(), rank_of(*change)));
      }
      number -= all;
    }
}

// Does what nobody has begun.
void CpuDevice::reduce(Reduction& r, std::span<const Product> products) const {
  for (uint32_t number; (number = r.next.fetch_add(1, std::memory_order_relaxed)) < r.count;) {
    reduce_one(products, r.x, number);
    r.done.fetch_add(1, std::memory_order_release);
  }
}

// Others may still be at theirs, but they are at work on them.
void CpuDevice::wait_for(const Reduction& r) {
  for (uint32_t spins = 0; r.done.load(std::memory_order_acquire) < r.count; ++spins)
    if (spins > spins_before_yield) std::this_thread::yield();
}

// Some rows from `first` on, elements first_rank .. last_rank - 1.
void CpuDevice::reduce_rows(const Adapted& rows, const kernels::LowRank& change, const float* x, float* y, uint32_t first, uint32_t first_rank, uint32_t last_rank) const {
  const uint32_t rank = rank_of(change), m = std::min(rows_at_once, rows.n_rows - first), k = change.a.k;
  x += uint64_t{rows.first_row + first} * k;
  y += uint64_t{first} * rank;
  if (in_8_bits())
    return kernels_.lora_shrink({.a = change.a8,
                                 .scale = change.scale8,
                                 .x = x,
                                 .y = y,
                                 .m = m,
                                 .k = k,
                                 .rank = rank,
                                 .first_rank = first_rank,
                                 .last_rank = last_rank,
                                 .factor = rows.scale});
  kernels::MatmulArgs args{};
  args.w = &change.a;
  args.x = x;
  args.y = y;
  args.m = m;
  args.y_stride = rank;
  args.first_block = first_rank / 16;
  args.last_block = last_rank / 16;
  kernels_.matmul_float(args);
  const float scale = change.scale * rows.scale;
  for (uint32_t i = 0; i < m; ++i)
    for (uint32_t j = first_rank; j < last_rank; ++j) y[uint64_t{i} * rank + j] *= scale;
}

// While the product is computed, what comes next is fetched: the second matrix for these blocks, and a part of the first one of what follows.
void CpuDevice::fetch_ahead(const Product& product, uint32_t first_block, uint32_t last_block) const {
  if (!in_8_bits()) return;
  const auto fetch = [](const int8_t* data, uint64_t first, uint64_t last) {
    for (uint64_t at = first / 64 * 64; at < last; at += 64) __builtin_prefetch(data + at, 0, 2);
  };
  const uint64_t blocks = kernels::n_blocks(product.w->n);
  for (const Adapted& rows : batch_.adapted) {
    const kernels::LowRank* change = change_of(rows, product);
    if (!change) continue;
    fetch(change->b8, uint64_t{first_block} * change->rank8 * 16, uint64_t{last_block} * change->rank8 * 16);
    fetch(change->next8, change->next8_bytes * first_block / blocks, change->next8_bytes * last_block / blocks);
  }
}

// Adds to the outputs first_block .. last_block - 1 of a product.
void CpuDevice::expand(std::span<const Product> products, size_t index, uint32_t first_block, uint32_t last_block) const {
  const Product& product = products[index];
  for (const Adapted& rows : batch_.adapted) {
    const kernels::LowRank* change = change_of(rows, product);
    if (!change) continue;
    const float* x = reduced(rows, products, index);
    float* y = product.y + uint64_t{rows.first_row} * product.w->n;
    if (in_8_bits()) {
      kernels_.lora_expand({.b = change->b8, .x = x, .y = y, .m = rows.n_rows, .n = product.w->n, .rank = change->rank8, .first_block = first_block, .last_block = last_block});
      continue;
    }
    kernels::MatmulArgs args{};
    args.w = &change->b;
    args.x = x;
    args.y = y;
    args.m = rows.n_rows;
    args.y_stride = product.w->n;
    args.first_block = first_block;
    args.last_block = last_block;
    args.accumulate = true;
    kernels_.matmul_float(args);
  }
}

}  // namespace gptq::device
