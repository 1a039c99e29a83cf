// SPDX-License-Identifier: Apache-2.0
// Attention on a latent cache: queries go to the latent space head by head, and what attention gives comes back the same way.
#include <algorithm>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

constexpr uint32_t heads_per_task = 16, rows_per_task = 16;

kernels::LatentView view(const KvCache& kv, const Sequence& s, const LatentAttention& a) {
  return {.base = kv.base,
          .pages = s.pages,
          .page_stride = kv.page_stride,
          .page_tokens = kv.page_tokens,
          .width = a.kv_rank + a.d_rope,
          .rank = a.kv_rank,
          .kind = kv.kind};
}

uint32_t pieces(uint32_t n, uint32_t size) { return (n + size - 1) / size; }
uint32_t blocks_of(const Sequence& s) { return (s.first_position + s.n_rows - 1) / kernels::attention_block + 1; }

}  // namespace

void CpuDevice::turn(int32_t rope, uint64_t row, float* x, uint32_t n_heads, uint32_t stride) const {
  if (rope < 0) return;
  const Angles& angles = batch_.ropes[static_cast<size_t>(rope)];
  kernels_.rope({x, angles.cos + row * angles.n, angles.sin + row * angles.n, 1, n_heads * stride, n_heads, stride, 2 * angles.n});
}

void CpuDevice::latent_attention(const KvCache& kv, const LatentAttention& a) {
  const uint32_t d = a.d_nope + a.d_rope, width = a.kv_rank + a.d_rope, rows = batch_.n_rows();
  const auto each_head = [&](const void* w, const float* x, uint64_t x_head, float* y, uint64_t y_head, uint32_t n, uint32_t k, auto&& after) {
    split(uint64_t{rows} * a.n_heads, 4, [&](uint64_t first, uint64_t last) {
      while (first < last) {  // the heads of one row
        const uint64_t row = first / a.n_heads;
        const auto head = static_cast<uint32_t>(first % a.n_heads), end = static_cast<uint32_t>(std::min<uint64_t>(a.n_heads, head + (last - first)));
        kernels_.head_matmul({.kind = a.kind, .w = w, .x = x + row * a.n_heads * x_head, .y = y + row * a.n_heads * y_head, .x_stride = 0,
                              .x_head_stride = x_head, .y_stride = 0, .y_head_stride = y_head, .m = 1, .n = n, .k = k, .first_head = head, .last_head = end});
        after(row, head, end);
        first += end - head;
      }
    });
  };
  for (const Sequence& s : batch_.sequences)
    for (uint32_t row = s.first_row; row < s.first_row + s.n_rows; ++row) turn(a.rope, row, a.kv + uint64_t{row} * width + a.kv_rank, 1, a.d_rope);
  for (const Sequence& s : batch_.sequences)
    kernels_.store_latent({.latent = a.c + uint64_t{s.first_row} * a.kv_rank, .rope = a.kv + uint64_t{s.first_row} * width + a.kv_rank, .m = s.n_rows,
                           .latent_stride = a.kv_rank, .rope_stride = width, .first_position = s.first_position, .kv = view(kv, s, a)});
  each_head(a.keys, a.q, d, a.q_latent, width, a.kv_rank, a.d_nope, [&](uint64_t row, uint32_t head, uint32_t end) {
    turn(a.rope, row, a.q + (row * a.n_heads + head) * d + a.d_nope, end - head, d);
    for (uint32_t h = head; h < end; ++h) std::copy_n(a.q + (row * a.n_heads + h) * d + a.d_nope, a.d_rope, a.q_latent + (row * a.n_heads + h) * width + a.kv_rank);
  });
  attend_latent(kv, a);
  each_head(a.values, a.o_latent, a.kv_rank, a.out, a.d_v, a.d_v, a.kv_rank, [](uint64_t, uint32_t, uint32_t) {});
}

// As attention(): whole rows, or blocks of positions that are merged afterwards; the result is the same.
void CpuDevice::attend_latent(const KvCache& kv, const LatentAttention& a) {
  const std::span<const Sequence> sequences = batch_.sequences;
  const uint32_t groups = pieces(a.n_heads, heads_per_task), width = a.kv_rank + a.d_rope;
  uint64_t whole_tasks = 0, n_partials = 0;
  for (const Sequence& s : sequences) {
    whole_tasks += uint64_t{pieces(s.n_rows, rows_per_task)} * groups;
    n_partials += uint64_t{s.n_rows} * blocks_of(s);
  }
  const bool whole = pool_.threads() == 1 || whole_tasks >= uint64_t{pool_.threads()} * tasks_per_thread || n_partials > scratch_.n_partials;
  const uint64_t partial_floats = uint64_t{a.n_heads} * (a.kv_rank + 2);
  const auto n_tasks = [&](const Sequence& s) { return pieces(s.n_rows, rows_per_task) * groups * (whole ? 1 : blocks_of(s)); };
  uint32_t tasks = 0;
  for (const Sequence& s : sequences) tasks += n_tasks(s);
  pool_.run(tasks, [&](uint32_t task) {
    const Sequence* s = sequences.data();
    float* partials = scratch_.partials;
    for (uint32_t n; task >= (n = n_tasks(*s)); ++s) {
      task -= n;
      partials += uint64_t{s->n_rows} * blocks_of(*s) * partial_floats;
    }
    const uint32_t group = task % groups, n_pieces = pieces(s->n_rows, rows_per_task), first = task / groups % n_pieces * rows_per_task;
    const uint64_t row = s->first_row + first;
    kernels::LatentAttentionArgs args{};
    args.q = a.q_latent + row * a.n_heads * width;
    args.out = a.o_latent + row * a.n_heads * a.kv_rank;
    args.m = std::min(rows_per_task, s->n_rows - first);
    args.first_position = s->first_position + first;
    args.n_heads = a.n_heads;
    args.first_head = group * heads_per_task;
    args.last_head = std::min(a.n_heads, (group + 1) * heads_per_task);
    args.scale = a.scale;
    args.kv = view(kv, *s, a);
    if (!whole) {
      const uint32_t block = task / groups / n_pieces;
      args.block_stride = s->n_rows * partial_floats;
      args.partials = partials + block * args.block_stride + first * partial_floats;
      args.first_block = block;
      args.last_block = block + 1;
    }
    kernels_.latent_attention(args);
  });
  if (!whole) merge_attention(a.o_latent, {.n_heads = a.n_heads, .window = 0, .chunk = 0, .scale = 0, .softcap = 0, .alibi_slopes = nullptr, .sinks = nullptr}, a.kv_rank);
}

}  // namespace gptq::device
