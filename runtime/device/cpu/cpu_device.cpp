// SPDX-License-Identifier: Apache-2.0
#include "device/cpu/cpu_device.h"

#include <algorithm>
#include <cmath>

#include "kernels/half.h"
#include "kernels/kv.h"

namespace gptq::device {
namespace {

using kernels::Matrix;

constexpr uint32_t shared_rows = 32;  // that leave partials of attention, of a batch of rows that are one of a sequence each

kernels::KvView view(const KvCache& kv, const uint32_t* pages) {
  return {.base = kv.base,
          .pages = pages,
          .page_stride = kv.page_stride,
          .value_offset = kv.value_offset,
          .page_tokens = kv.page_tokens,
          .n_kv_heads = kv.n_kv_heads,
          .key_dim = kv.key_dim,
          .value_dim = kv.value_dim,
          .kinds = kv.kinds};
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

CpuScratch::CpuScratch(const CpuLimits& limits, base::Arena& arena)
    : activations(limits.activations) {
  attention.n_partials = std::min(limits.rows, shared_rows) * uint64_t(limits.ctx_tokens / kernels::attention_block + 1);
  attention.parts = arena.take<AttentionPart>(attention.n_partials + limits.rows);
  attention.merges = arena.take<AttentionMerge>(limits.rows);
  attention.partials = arena.take<float>(attention.n_partials * limits.n_heads * (limits.value_dim + 2));
  finished = arena.take<float>(limits.finished);
  if (activations != Activations::int8) {
    gathered = arena.take<float>(limits.packed_elements);
    return;
  }
  packed.records = arena.take<kernels::Record>(limits.packed_elements / kernels::record_columns);
  packed.scale = arena.take<float>(limits.packed_rows);
  packed.sum = arena.take<float>(limits.packed_elements / 16);
}

CpuDevice::CpuDevice(const kernels::Kernels& kernels, base::Pool& pool, const CpuScratch& scratch)
    : kernels_(kernels), pool_(pool), scratch_(scratch) {}

void CpuDevice::embed(const Matrix& table, std::span<const int32_t> tokens, float* x) {
  split(tokens.size(), 16, [&](uint64_t first, uint64_t last) {
    for (uint64_t i = first; i < last; ++i) kernels_.dequantize_row({&table, static_cast<uint32_t>(tokens[i]), x + i * table.k});
  });
}

void CpuDevice::embed(const Matrix& table, float* x) { embed(table, batch_.tokens, x); }

void CpuDevice::select_rows(const float* x, uint32_t n, uint32_t first, uint32_t count, float* out) {
  for (uint32_t i = 0; i < count; ++i) std::copy_n(x + size_t(batch_.logit_rows[first + i]) * n, n, out + size_t(i) * n);
}

// A row as the matrices read it, in true order.
const float* CpuDevice::finish_row(uint32_t row, uint32_t k) {
  const float* x = input_.x + uint64_t{row} * k;
  if (!input_.norm && !input_.activated) return x;
  float* y = scratch_.finished + uint64_t{row} * k;
  if (finished_) return y;
  if (input_.norm) norm_rows(x, *input_.norm, y, 1, k);
  else activate(input_, x, input_.up ? input_.up + uint64_t{row} * k : nullptr, y, k);
  return y;
}

const float* CpuDevice::finish_input(const Input& input, uint32_t rows, uint32_t k) {
  prepare(input, rows);
  return finish_rows(k);
}

const float* CpuDevice::finish_rows(uint32_t k) {
  split(rows_, 1 + 8192 / k, [&](uint64_t first, uint64_t last) {
    for (auto row = static_cast<uint32_t>(first); row < last; ++row) finish_row(row, k);
  });
  finished_ = true;
  return finish_row(0, k);
}

CpuDevice::Form CpuDevice::form_of(const Matrix& w) const {
  if (!kernels::is_quantized(w.kind)) return Form::plain;
  if (scratch_.activations == Activations::int8) return Form::int8;
  if (scratch_.activations == Activations::f32) return Form::floats;
  return kernels_.matmul_bf16 ? Form::bf16 : Form::rounded;
}

void CpuDevice::pack_row(const Matrix& w, const float* x, uint32_t row) {
  const uint64_t first = uint64_t{row} * w.k_padded;
  kernels::Int8Activations x8 = scratch_.packed;
  switch (form_) {
    case Form::none:
    case Form::plain: return;
    case Form::int8:
      x8.rows = rows_;
      x8.k_padded = w.k_padded;
      x8.sum_block = kernels::activation_sum_block(w.group);
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

void CpuDevice::prepare(const Input& input, uint32_t rows) {
  input_ = input;
  rows_ = rows;
  finished_ = false;
  form_ = Form::none;
}

bool CpuDevice::is_packed_for(const Matrix& w) const {
  return form_ == form_of(w) && same_input(packed_for_, w, scratch_.activations);
}

void CpuDevice::pack(const Matrix& w) {
  form_ = form_of(w);
  packed_for_ = w;
  if (form_ == Form::plain && !input_.norm && !input_.activated) return;
  split(rows_, 1 + 8192 / w.k, [&](uint64_t first, uint64_t last) {
    for (auto row = static_cast<uint32_t>(first); row < last; ++row) pack_row(w, finish_row(row, w.k), row);
  });
  finished_ = true;
}

// Products that want their input in the same form run in one loop over the 16-row blocks of all of them.
void CpuDevice::matmul(std::span<const Product> products, bool accumulate) {
  while (!products.empty()) {
    size_t n = 1;
    while (n < products.size() && form_of(*products[0].w) == form_of(*products[n].w) && same_input(*products[0].w, *products[n].w, scratch_.activations)) ++n;
    if (!is_packed_for(*products[0].w)) pack(*products[0].w);
    multiply_group(products.first(n), accumulate);
    products = products.subspan(n);
  }
}

void CpuDevice::multiply_group(std::span<const Product> products, bool accumulate) {
  const auto matmul = form_ == Form::int8 ? kernels_.matmul_int8 : form_ == Form::bf16 ? kernels_.matmul_bf16 : kernels_.matmul_float;
  const float* x = form_ == Form::plain ? finish_row(0, packed_for_.k) : scratch_.gathered;
  const uint64_t stride = form_ == Form::plain ? packed_for_.k : packed_for_.k_padded;
  Reduction added;
  if (!batch_.adapted.empty()) added.count = count_reductions(products), added.x = finish_row(0, products[0].w->k);
  uint64_t total = 0;
  for (const Product& p : products) total += kernels::n_blocks(p.w->n);
  split(total, 2, [&](uint64_t first, uint64_t last) {
    if (added.count) reduce(added, products);
    for (size_t i = 0; i < products.size(); ++i) {
      const Product& p = products[i];
      const uint64_t blocks = kernels::n_blocks(p.w->n);
      if (first < blocks && last > 0) {
        kernels::MatmulArgs args{};
        args.w = p.w;
        args.x8 = scratch_.packed;
        args.x8.rows = rows_;
        args.x8.k_padded = packed_for_.k_padded;
        args.x8.sum_block = kernels::activation_sum_block(packed_for_.group);
        if (form_ == Form::int8) args.x8.records += p.first_row, args.x8.scale += p.first_row, args.x8.sum += p.first_row;
        args.x = x + p.first_row * stride;
        args.x16 = scratch_.gathered16() + p.first_row * stride;
        args.y = p.y + uint64_t{p.first_row} * p.w->n;
        args.m = std::min(p.n_rows, rows_ - p.first_row);
        args.y_stride = p.w->n;
        args.first_block = static_cast<uint32_t>(first);
        args.last_block = static_cast<uint32_t>(std::min(last, blocks));
        args.bias = p.bias;
        args.accumulate = accumulate;
        if (added.count) fetch_ahead(p, args.first_block, args.last_block);
        matmul(args);
        if (added.count) wait_for(added), expand(products, i, args.first_block, args.last_block);
      }
      first -= std::min(first, blocks);
      last -= std::min(last, blocks);
    }
  });
}

void CpuDevice::norm_heads(const HeadNorms& norms, const Norm& norm, float* x, uint32_t rows, uint32_t n_heads, uint32_t dim) const {
  using kernels::Span;
  if (norms.span == Span::all) return norm_rows(x, norm, x, rows, n_heads * dim);
  if (norms.span != Span::each_head) return norm_rows(x, norm, x, rows * n_heads, dim);
  for (uint32_t i = 0; i < rows * n_heads; ++i) {
    Norm one = norm;
    one.weight += uint64_t{i} % n_heads * dim;
    if (one.bias) one.bias += uint64_t{i} % n_heads * dim;
    norm_rows(x + uint64_t{i} * dim, one, x + uint64_t{i} * dim, 1, dim);
  }
}

void CpuDevice::append_rows(const KvCache& kv, const Heads& h, const Sequence& s, uint32_t first, uint32_t n_rows) {
  const uint32_t q_stride = h.n_heads * kv.key_dim, k_stride = kv.n_kv_heads * kv.key_dim, v_stride = kv.n_kv_heads * kv.value_dim;
  const uint64_t row = s.first_row + first;
  float *q = h.q + row * q_stride, *k = h.k + row * k_stride, *v = h.v + row * v_stride;
  const auto norm = [&] {
    norm_heads(h.norms, h.norms.q, q, n_rows, h.n_heads, kv.key_dim);
    norm_heads(h.norms, h.norms.k, k, n_rows, kv.n_kv_heads, kv.key_dim);
  };
  if (h.norms.any && !h.norms.after_rope) norm();
  if (h.clip > 0) {
    const auto clip = [&](float* x, uint64_t count) {
      kernels_.elementwise({.kind = kernels::Elementwise::clamp, .x = x, .y = nullptr, .out = x, .count = count, .factor = h.clip});
    };
    clip(q, uint64_t{n_rows} * q_stride), clip(k, uint64_t{n_rows} * k_stride), clip(v, uint64_t{n_rows} * v_stride);
  }
  if (h.rope >= 0) {
    const Angles& angles = batch_.ropes[static_cast<size_t>(h.rope)];
    const float *cos = angles.cos + row * angles.n, *sin = angles.sin + row * angles.n;
    kernels_.rope({q, cos, sin, n_rows, q_stride, h.n_heads, kv.key_dim, 2 * angles.n});
    kernels_.rope({k, cos, sin, n_rows, k_stride, kv.n_kv_heads, kv.key_dim, 2 * angles.n});
  }
  if (h.norms.any && h.norms.after_rope) norm();
  for (uint32_t i = 0; h.query_scale.factor != 0 && i < n_rows; ++i) {
    const float position = static_cast<float>(s.first_position + first + i);
    const float factor = 1 + h.query_scale.factor * std::log1p(std::floor((position + h.query_scale.offset) / h.query_scale.floor));
    float* scaled = q + uint64_t{i} * q_stride;
    kernels_.elementwise({.kind = kernels::Elementwise::scale, .x = scaled, .y = nullptr, .out = scaled, .count = q_stride, .factor = factor});
  }
  if (kv.kinds.keys == kernels::KvKind::i4) {  // turned alike, so that their products stay
    kernels_.hadamard({.x = q, .m = n_rows, .x_stride = q_stride, .n_heads = h.n_heads, .head_dim = kv.key_dim});
    kernels_.hadamard({.x = k, .m = n_rows, .x_stride = k_stride, .n_heads = kv.n_kv_heads, .head_dim = kv.key_dim});
  }
  if (kv.kinds.values == kernels::KvKind::i4)
    kernels_.hadamard({.x = v, .m = n_rows, .x_stride = v_stride, .n_heads = kv.n_kv_heads, .head_dim = kv.value_dim});
  kernels_.store_kv({.k = k, .v = v, .m = n_rows, .k_stride = k_stride, .v_stride = v_stride, .first_position = s.first_position + first, .kv = view(kv, s.pages)});
}

// Keys in int4 depend on that at the beginning of their 16 positions, which stay together.
void CpuDevice::append_kv(const KvCache& kv, const Heads& heads) {
  const uint64_t together = kv.kinds.keys == kernels::KvKind::i4 ? 16 : 1, least = 1 + 8192 / (heads.n_heads * kv.key_dim);
  for (const Sequence& s : batch_.sequences) {
    const uint64_t begin = s.first_position, end = begin + s.n_rows, part = begin / together;
    split((end - 1) / together - part + 1, (least + together - 1) / together, [&](uint64_t first, uint64_t last) {
      const uint64_t from = std::max((part + first) * together, begin), to = std::min((part + last) * together, end);
      append_rows(kv, heads, s, static_cast<uint32_t>(from - begin), static_cast<uint32_t>(to - from));
    });
  }
}

// One task a part and key/value head.
void CpuDevice::attention(const KvCache& kv, const float* q, float* out, const AttentionShape& shape) {
  const uint64_t q_stride = uint64_t(shape.n_heads) * kv.key_dim, stride = uint64_t(shape.n_heads) * kv.value_dim;
  const bool turned = kv.kinds.values == kernels::KvKind::i4;  // the results are turned back as soon as they are whole
  const AttentionPlan plan = plan_attention(batch_.sequences, {shape.window, shape.chunk, shape.alibi_slopes != nullptr}, kv.page_tokens, kv.n_kv_heads,
                                            tasks_wanted(), uint64_t(shape.n_heads) * (kv.value_dim + 2), scratch_.attention);
  pool_.run(static_cast<uint32_t>(plan.parts.size()) * kv.n_kv_heads, [&](uint32_t task) {
    const AttentionPart& part = plan.parts[task / kv.n_kv_heads];
    const uint32_t head = task % kv.n_kv_heads;
    kernels_.attention({.q = q + part.first_row * q_stride,
                        .out = out + part.first_row * stride,
                        .m = part.n_rows,
                        .first_position = part.first_position,
                        .n_heads = shape.n_heads,
                        .first_kv_head = head,
                        .last_kv_head = head + 1,
                        .scale = shape.scale,
                        .window = part.all_seen ? 0 : shape.window,
                        .kv = view(kv, part.pages),
                        .partials = part.partials,
                        .block_stride = part.block_stride,
                        .first_block = part.first_block,
                        .last_block = part.last_block,
                        .chunk = part.all_seen ? 0 : shape.chunk,
                        .softcap = shape.softcap,
                        .alibi_slopes = shape.alibi_slopes,
                        .sinks = shape.sinks});
    const uint32_t heads = shape.n_heads / kv.n_kv_heads;
    float* own = out + part.first_row * stride + uint64_t{head} * heads * kv.value_dim;
    if (turned && !part.partials)
      kernels_.hadamard({.x = own, .m = part.n_rows, .x_stride = static_cast<uint32_t>(stride), .n_heads = heads, .head_dim = kv.value_dim});
  });
  merge_attention(plan, out, shape, kv.value_dim, turned);
}

void CpuDevice::merge_attention(const AttentionPlan& plan, float* out, const AttentionShape& shape, uint32_t value_dim, bool turned) {
  for (const AttentionMerge& m : plan.merges)
    split(uint64_t(m.n_rows) * shape.n_heads, 1 + 65536 / (((m.first_position + m.n_rows) / kernels::attention_block + 1) * value_dim), [&](uint64_t first, uint64_t last) {
      kernels_.merge_attention({.partials = m.partials,
                                .block_stride = m.block_stride,
                                .first_block = m.first_block,
                                .out = out + uint64_t(m.first_row) * shape.n_heads * value_dim,
                                .first_position = m.first_position,
                                .n_heads = shape.n_heads,
                                .value_dim = value_dim,
                                .window = shape.window,
                                .first_query = static_cast<uint32_t>(first),
                                .last_query = static_cast<uint32_t>(last),
                                .chunk = shape.chunk,
                                .sinks = shape.sinks});
      float* own = out + (uint64_t(m.first_row) * shape.n_heads + first) * value_dim;
      if (turned)
        kernels_.hadamard({.x = own, .m = static_cast<uint32_t>(last - first), .x_stride = value_dim, .n_heads = 1, .head_dim = value_dim});
    });
}

}  // namespace gptq::device
