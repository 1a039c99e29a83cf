// SPDX-License-Identifier: Apache-2.0
#include "device/cpu/cpu_device.h"

#include <algorithm>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::device {
namespace {

using kernels::Matrix;

constexpr uint32_t tasks_per_thread = 4;   // so that a thread that is held up costs little
constexpr uint32_t rows_per_task = 16;     // of attention

kernels::KvView view(const KvCache& kv, const Sequence& sequence, uint32_t layer) {
  return {kv.base + layer * kv.layer_stride,
          sequence.pages,
          kv.page_stride,
          kv.value_offset,
          kv.page_tokens,
          kv.n_kv_heads,
          kv.head_dim,
          kv.head_dim,
          kv.kind};
}

uint32_t row_pieces(const Sequence& s) { return (s.n_rows + rows_per_task - 1) / rows_per_task; }

// Attention's blocks that the rows of a sequence see something of.
struct BlockRange {
  uint32_t first, last;
  uint32_t count() const { return last - first; }
};

BlockRange blocks_of(const Sequence& s, uint32_t window) {
  constexpr uint32_t size = kernels::attention_block;
  return {kernels::first_seen(s.first_position, window, 0) / size, (s.first_position + s.n_rows - 1) / size + 1};
}

// Whether two matrices want their activations in the same form.
bool same_input(const Matrix& a, const Matrix& b, Activations activations) {
  if (kernels::is_quantized(a.kind) != kernels::is_quantized(b.kind)) return false;
  if (!kernels::is_quantized(a.kind)) return true;
  if (a.perm != b.perm || a.k_padded != b.k_padded) return false;
  return activations != Activations::int8 || kernels::activation_sum_block(a.group) == kernels::activation_sum_block(b.group);
}

// Calls f(column, value) with one row in the order of a quantized matrix's columns.
template <class F>
void for_each_column(const Matrix& w, const float* x, F f) {
  if (w.perm) {
    for (uint32_t c = 0; c < w.k_padded; ++c) f(c, w.perm[c] < 0 ? 0.0f : x[w.perm[c]]);
    return;
  }
  for (uint32_t c = 0; c < w.k; ++c) f(c, x[c]);
  for (uint32_t c = w.k; c < w.k_padded; ++c) f(c, 0.0f);
}

// One row as matmul_float reads it for a quantized matrix.
template <class F>
void place_floats(const Matrix& w, const float* x, float* out, F convert) {
  for_each_column(w, x, [=](uint32_t c, float value) { out[c / 64 * 64 + kernels::float_place(c)] = convert(value); });
}

}  // namespace

// How a matrix reads its inputs here. rounded: to bfloat16, as float32, where there is no matmul_bf16.
enum class CpuDevice::Form : uint8_t { plain, int8, bf16, rounded, floats };

struct CpuDevice::Packed {
  Form form;
  kernels::Int8Activations x8;
  const float* x;
  const uint16_t* x16;
};

CpuScratch::CpuScratch(const CpuLimits& limits, base::Arena& arena)
    : activations(limits.activations), n_partials(std::min(limits.rows, 8u) * uint64_t(limits.ctx_tokens / kernels::attention_block + 1)) {
  partials = arena.take<float>(n_partials * limits.n_heads * (limits.head_dim + 2));
  normed = arena.take<float>(uint64_t(limits.rows) * limits.n_embd);
  const uint64_t elements = uint64_t(limits.rows) * limits.k_padded;
  if (activations != Activations::int8) {
    gathered = arena.take<float>(elements);
    return;
  }
  packed.records = arena.take<kernels::Record>(uint64_t(limits.rows) * (limits.k_padded / kernels::record_columns));
  packed.scale = arena.take<float>(limits.rows);
  packed.sum = arena.take<float>(elements / 16);
}

CpuDevice::CpuDevice(const kernels::Kernels& kernels, base::Pool& pool, const CpuScratch& scratch)
    : kernels_(kernels), pool_(pool), scratch_(scratch) {}

template <class F>
void CpuDevice::split(uint64_t total, uint64_t least, F&& part) {
  const uint64_t tasks = std::clamp<uint64_t>(total / least, 1, uint64_t(pool_.threads()) * tasks_per_thread);
  pool_.run(static_cast<uint32_t>(tasks), [&](uint32_t task) { part(total * task / tasks, total * (task + 1) / tasks); });
}

void CpuDevice::embed(const Matrix& table, std::span<const int32_t> tokens, float* x) {
  split(tokens.size(), 16, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) kernels_.dequantize_row({&table, static_cast<uint32_t>(tokens[i]), x + i * table.k});
  });
}

void CpuDevice::embed(const Matrix& table, float* x) { embed(table, batch_.tokens, x); }
void CpuDevice::upload(const float* host, uint64_t count, float* x) { std::copy_n(host, count, x); }

void CpuDevice::select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) {
  for (uint32_t i = 0; i < count; ++i) std::copy_n(x + size_t(batch_.logit_rows[first + i]) * n, n, out + size_t(i) * n);
}

void CpuDevice::rms_norm(const float* x, const float* weight, float* y, uint32_t rows, uint32_t n, float eps) {
  split(rows, 1 + 8192 / n, [&](uint64_t first, uint64_t last) {
    kernels_.rms_norm({x + first * n, weight, y + first * n, static_cast<uint32_t>(last - first), n, eps});
  });
}

void CpuDevice::silu_mul(float* gate, const float* up, uint32_t rows, uint32_t n) {
  split(rows, 1 + 8192 / n, [&](uint64_t first, uint64_t last) {
    kernels_.silu_mul({gate + first * n, up + first * n, gate + first * n, (last - first) * n});
  });
}

// A row as the matrices read it, in true order.
const float* CpuDevice::finish_input(const Input& input, uint32_t row, uint32_t k) {
  float* x = input.x + uint64_t{row} * k;
  if (input.up) kernels_.silu_mul({x, input.up + uint64_t{row} * k, x, k});
  if (!input.norm) return x;
  float* y = scratch_.normed + uint64_t{row} * k;
  kernels_.rms_norm({x, input.norm, y, 1, k, input.eps});
  return y;
}

CpuDevice::Form CpuDevice::form_of(const Matrix& w) const {
  if (!kernels::is_quantized(w.kind)) return Form::plain;
  if (scratch_.activations == Activations::int8) return Form::int8;
  if (scratch_.activations == Activations::f32) return Form::floats;
  return kernels_.matmul_bf16 ? Form::bf16 : Form::rounded;
}

void CpuDevice::pack_row(const Matrix& w, const float* x, const Packed& packed, uint32_t row) {
  const uint64_t first = uint64_t{row} * w.k_padded;
  kernels::Int8Activations x8 = packed.x8;
  switch (packed.form) {
    case Form::plain: return;
    case Form::int8:
      x8.records += row;
      x8.scale += row;
      x8.sum += row;
      return kernels_.pack_int8({x, 1, w.k, w.perm, x8});
    case Form::bf16:
      return for_each_column(w, x, [out = scratch_.gathered16() + first](uint32_t c, float value) { out[c] = kernels::bf16_from_float(value); });
    case Form::rounded:
      return place_floats(w, x, scratch_.gathered + first, [](float value) { return kernels::float_from_bf16(kernels::bf16_from_float(value)); });
    case Form::floats: return place_floats(w, x, scratch_.gathered + first, [](float value) { return value; });
  }
}

CpuDevice::Packed CpuDevice::pack(const Matrix& w, const Input& input, uint32_t rows) {
  Packed packed{form_of(w), scratch_.packed, scratch_.gathered, scratch_.gathered16()};
  const bool plain = packed.form == Form::plain;
  if (plain) packed.x = input.norm ? scratch_.normed : input.x;
  packed.x8.rows = rows;
  packed.x8.k_padded = w.k_padded;
  packed.x8.sum_block = kernels::activation_sum_block(w.group);
  if (plain && !input.norm && !input.up) return packed;
  split(rows, 1 + 8192 / w.k, [&](uint64_t first, uint64_t last) {
    for (auto row = static_cast<uint32_t>(first); row < last; ++row) pack_row(w, finish_input(input, row, w.k), packed, row);
  });
  return packed;
}

// Products that want their input in the same form run in one loop over the 16-row blocks of all of them.
void CpuDevice::matmul(std::span<const Product> products, const Input& input, uint32_t rows, bool accumulate) {
  Input rest = input;
  while (!products.empty()) {
    size_t n = 1;
    while (n < products.size() && same_input(*products[0].w, *products[n].w, scratch_.activations)) ++n;
    const std::span<const Product> group = products.first(n);
    products = products.subspan(n);
    const Packed packed = pack(*group[0].w, rest, rows);
    const auto matmul = packed.form == Form::int8 ? kernels_.matmul_int8 : packed.form == Form::bf16 ? kernels_.matmul_bf16 : kernels_.matmul_float;
    rest.up = nullptr;  // it is multiplied in now
    uint64_t total = 0;
    for (const Product& p : group) total += kernels::n_blocks(p.w->n);
    split(total, 2, [&](uint64_t first, uint64_t last) {
      for (const Product& p : group) {
        const uint64_t blocks = kernels::n_blocks(p.w->n);
        if (first < blocks && last > 0) {
          const kernels::MatmulArgs args{p.w, packed.x8, packed.x, packed.x16, p.y, rows, p.w->n, static_cast<uint32_t>(first),
                                         static_cast<uint32_t>(std::min(last, blocks)), p.bias, accumulate};
          matmul(args);
        }
        first -= std::min(first, blocks);
        last -= std::min(last, blocks);
      }
    });
  }
}

void CpuDevice::append_rows(const KvCache& kv, const Heads& h, uint32_t layer, const Sequence& s, uint32_t first, uint32_t n_rows) {
  const uint32_t q_stride = h.n_heads * kv.head_dim, k_stride = kv.n_kv_heads * kv.head_dim;
  const uint64_t row = s.first_row + first;
  float *q = h.q + row * q_stride, *k = h.k + row * k_stride;
  if (h.q_norm) kernels_.rms_norm({q, h.q_norm, q, n_rows * h.n_heads, kv.head_dim, h.eps});
  if (h.k_norm) kernels_.rms_norm({k, h.k_norm, k, n_rows * kv.n_kv_heads, kv.head_dim, h.eps});
  const float *cos = batch_.cos + row * (h.rope_dim / 2), *sin = batch_.sin + row * (h.rope_dim / 2);
  kernels_.rope({q, cos, sin, n_rows, q_stride, h.n_heads, kv.head_dim, h.rope_dim});
  kernels_.rope({k, cos, sin, n_rows, k_stride, kv.n_kv_heads, kv.head_dim, h.rope_dim});
  kernels_.store_kv({k, h.v + row * k_stride, n_rows, k_stride, k_stride, s.first_position + first, view(kv, s, layer)});
}

void CpuDevice::append_kv(const KvCache& kv, const Heads& heads, uint32_t layer) {
  for (const Sequence& s : batch_.sequences)
    split(s.n_rows, 1 + 8192 / (heads.n_heads * kv.head_dim), [&](uint64_t first, uint64_t last) {
      append_rows(kv, heads, layer, s, static_cast<uint32_t>(first), static_cast<uint32_t>(last - first));
    });
}

// One task per sequence, piece of rows, key/value head and, where that makes too few, block of positions: then the blocks leave partials,
// which are merged afterwards. The result is the same either way.
void CpuDevice::attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) {
  const std::span<const Sequence> sequences = batch_.sequences;
  uint64_t whole_tasks = 0, n_partials = 0;
  for (const Sequence& s : sequences) {
    whole_tasks += uint64_t(row_pieces(s)) * kv.n_kv_heads;
    n_partials += uint64_t(s.n_rows) * blocks_of(s, shape.window).count();
  }
  const bool whole = pool_.threads() == 1 || whole_tasks >= uint64_t(pool_.threads()) * tasks_per_thread || n_partials > scratch_.n_partials;
  const uint64_t stride = uint64_t(shape.n_heads) * kv.head_dim, partial_floats = uint64_t(shape.n_heads) * (kv.head_dim + 2);
  const auto n_tasks = [&](const Sequence& s) {
    return row_pieces(s) * kv.n_kv_heads * (whole ? 1 : blocks_of(s, shape.window).count());
  };
  uint32_t tasks = 0;
  for (const Sequence& s : sequences) tasks += n_tasks(s);
  pool_.run(tasks, [&](uint32_t task) {
    const Sequence* s = sequences.data();
    float* partials = scratch_.partials;
    for (uint32_t n; task >= (n = n_tasks(*s)); ++s) {
      task -= n;
      partials += s->n_rows * blocks_of(*s, shape.window).count() * partial_floats;
    }
    const uint32_t head = task % kv.n_kv_heads, first = task / kv.n_kv_heads % row_pieces(*s) * rows_per_task;
    const uint64_t row = (s->first_row + first) * stride;
    kernels::AttentionArgs args{q + row, out + row, std::min(rows_per_task, s->n_rows - first), s->first_position + first, shape.n_heads, head,
                                head + 1, shape.scale, shape.window, view(kv, *s, shape.layer)};
    if (!whole) {
      const uint32_t block = task / kv.n_kv_heads / row_pieces(*s);
      args.block_stride = s->n_rows * partial_floats;
      args.partials = partials + block * args.block_stride + first * partial_floats;
      args.first_block = blocks_of(*s, shape.window).first + block;
      args.last_block = args.first_block + 1;
    }
    kernels_.attention(args);
  });
  if (!whole) merge_attention(out, shape, kv.head_dim);
}

void CpuDevice::merge_attention(float* out, const AttentionShape& shape, uint32_t head_dim) {
  const float* partials = scratch_.partials;
  for (const Sequence& s : batch_.sequences) {
    const BlockRange blocks = blocks_of(s, shape.window);
    const uint64_t stride = uint64_t(s.n_rows) * shape.n_heads * (head_dim + 2);
    split(uint64_t(s.n_rows) * shape.n_heads, 1 + 65536 / (blocks.count() * head_dim), [&](uint64_t first, uint64_t last) {
      kernels_.merge_attention({partials, stride, blocks.first, out + uint64_t(s.first_row) * shape.n_heads * head_dim, s.first_position,
                                shape.n_heads, head_dim, shape.window, static_cast<uint32_t>(first), static_cast<uint32_t>(last)});
    });
    partials += blocks.count() * stride;
  }
}

}  // namespace gptq::device
