// SPDX-License-Identifier: Apache-2.0
// Attention on a latent cache: queries go to the latent space head by head, and what attention gives comes back the same way.
#include <algorithm>

#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

constexpr uint32_t heads_per_task = 16;

kernels::LatentView view(const KvCache& kv, const uint32_t* pages, const LatentAttention& a) {
  return {.base = kv.base,
          .pages = pages,
          .page_stride = kv.page_stride,
          .page_tokens = kv.page_tokens,
          .width = a.kv_rank + a.d_rope,
          .rank = a.kv_rank,
          .kind = kv.kinds.keys};
}

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
                           .latent_stride = a.kv_rank, .rope_stride = width, .first_position = s.first_position, .kv = view(kv, s.pages, a)});
  each_head(a.keys, a.q, d, a.q_latent, width, a.kv_rank, a.d_nope, [&](uint64_t row, uint32_t head, uint32_t end) {
    turn(a.rope, row, a.q + (row * a.n_heads + head) * d + a.d_nope, end - head, d);
    for (uint32_t h = head; h < end; ++h) std::copy_n(a.q + (row * a.n_heads + h) * d + a.d_nope, a.d_rope, a.q_latent + (row * a.n_heads + h) * width + a.kv_rank);
  });
  attend_latent(kv, a);
  each_head(a.values, a.o_latent, a.kv_rank, a.out, a.d_v, a.d_v, a.kv_rank, [](uint64_t, uint32_t, uint32_t) {});
}

// One task a part and group of heads.
void CpuDevice::attend_latent(const KvCache& kv, const LatentAttention& a) {
  const uint32_t groups = (a.n_heads + heads_per_task - 1) / heads_per_task, width = a.kv_rank + a.d_rope;
  const AttentionPlan plan = plan_attention(batch_.sequences, {0, 0, false}, kv.page_tokens, groups, tasks_wanted(), uint64_t{a.n_heads} * (a.kv_rank + 2),
                                            scratch_.attention);
  pool_.run(static_cast<uint32_t>(plan.parts.size()) * groups, [&](uint32_t task) {
    const AttentionPart& part = plan.parts[task / groups];
    const uint32_t group = task % groups;
    kernels_.latent_attention({.q = a.q_latent + uint64_t{part.first_row} * a.n_heads * width,
                               .out = a.o_latent + uint64_t{part.first_row} * a.n_heads * a.kv_rank,
                               .m = part.n_rows,
                               .first_position = part.first_position,
                               .n_heads = a.n_heads,
                               .first_head = group * heads_per_task,
                               .last_head = std::min(a.n_heads, (group + 1) * heads_per_task),
                               .scale = a.scale,
                               .kv = view(kv, part.pages, a),
                               .partials = part.partials,
                               .block_stride = part.block_stride,
                               .first_block = part.first_block,
                               .last_block = part.last_block});
  });
  merge_attention(plan, a.o_latent, {.n_heads = a.n_heads, .window = 0, .chunk = 0, .scale = 0, .softcap = 0, .alibi_slopes = nullptr, .sinks = nullptr}, a.kv_rank,
                  false);
}

}  // namespace gptq::device
