// SPDX-License-Identifier: Apache-2.0
// The operation matmul: which products go together, the workspace, and the kernels before and after those that multiply.
#include "kernels/cuda/matmul.h"

#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

using kernels::Matrix;

constexpr uint32_t threads = 256, warps = threads / warp_size;

// The block's value of a sum or a maximum over its threads, in every thread.
template <class Join>
GPTQ_DEVICE float over_block(float of_warp, float* shared, Join join) {
  if (lane_index() == 0) shared[warp_index()] = of_warp;
  sync_block();
  float v = shared[0];
  for (uint32_t w = 1; w < warps; ++w) v = join(v, shared[w]);
  sync_block();
  return v;
}

// One token a thread block. The values are computed twice, rather than kept: for the scale, and to be packed.
GPTQ_KERNEL(threads) void pack_kernel(Job job) {
  wait_for_previous();
  let_next_begin();
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const uint32_t token = block_x(), lane = lane_index(), column = lane_column(lane);
  const uint32_t sums_of_tile = job.plain ? 0 : sums_per_tile(job), sum_steps = sums_of_tile ? tile_steps / sums_of_tile : 0;
  float largest = 0.0f, squares = 0.0f, unused = 0.0f;
  for (uint32_t tile = warp_index(); tile < job.tiles; tile += warps)
    for (uint32_t p = 0; p < 2; ++p) largest = fmaxf(largest, fabsf(input_value(job, token, tile * tile_columns + column + 2 * p, squares)));
  largest = over_block(warp_max(largest), shared, [](float a, float b) { return fmaxf(a, b); });
  squares = over_block(warp_sum(squares), shared, [](float a, float b) { return a + b; });
  const int exponent = scale_exponent(largest);
  if (thread_index() == 0) {
    const float factor = power_of_two((kernels::is_quantized(job.kind) && !job.plain ? 24 : 0) - exponent);
    job.factors[token] = job.input.norm ? factor * inverse_rms(job, squares) : factor;
  }
  const float times = power_of_two(exponent);
  const uint32_t high_column = job.exact ? token / 8 * 16 + token % 8 : token, low_column = high_column + 8;
  for (uint32_t tile = warp_index(); tile < job.tiles; tile += warps) {
    const uint32_t first = tile * tile_columns + column;
    const float a = input_value(job, token, first, unused) * times, b = input_value(job, token, first + 2, unused) * times;
    if (job.plain) {
      uint16_t* to = job.plain + uint64_t{token} * job.tiles * tile_columns + first;
      to[0] = half_bits(a);
      to[2] = half_bits(b);
      continue;
    }
    const Split split = split_pair(a, b);
    uint32_t* words = reinterpret_cast<uint32_t*>(job.packed + uint64_t{tile} * job.columns * packed_bytes) + packed_word(lane, token);
    words[high_column * (packed_bytes / 4)] = split.high;
    if (job.exact) words[low_column * (packed_bytes / 4)] = split.low;
    if (!sums_of_tile) continue;
    const float high = columns_sum(split.high_sum, sum_steps) * 0x1p-24f;
    const float low = columns_sum(split.low_sum, sum_steps) * 0x1p-24f;
    if (!has_sum(lane, sum_steps)) continue;
    float* sums = job.sums + (uint64_t{tile} * sums_of_tile + lane / 2) * job.columns;
    sums[high_column] = high;
    if (job.exact) sums[low_column] = low;
  }
}

// Adds the parts of K up, in their order.
GPTQ_KERNEL(threads) void finish_kernel(Job job) {
  wait_for_previous();
  const uint32_t row = block_x() * threads + thread_index(), token = block_y();
  if (row < job.n_blocks * block_rows) {
    float sum = 0.0f, squares = 0.0f;
    for (uint32_t part = 0; part < job.parts; ++part) sum += *partial(job, part, row, token);
    if (job.squares && job.input.norm) {
      for (uint32_t part = 0; part < job.parts; ++part) squares += job.squares[part * job.rows + token];
      sum *= inverse_rms(job, squares);
    }
    store_output(job, row, token, sum);
  }
  let_next_begin();
}

// Columns of `rows` packed rows, to whole thread blocks.
uint32_t columns_of(uint32_t rows, bool exact) {
  const uint32_t columns = exact ? (rows + 7) / 8 * 16 : rows, width = tile_width(columns);
  return (columns + width - 1) / width * width;
}

// Whether two products can share a launch.
bool alike(const Matrix& a, const Matrix& b) {
  return a.kind == b.kind && a.perm == b.perm && a.k == b.k && a.k_padded == b.k_padded && a.group == b.group && a.scales_f32 == b.scales_f32 &&
         !a.zeros == !b.zeros;
}

Job job_of(const MatmulArgs& args, const Product* products, uint32_t n) {
  const Matrix& w = products[0].w;
  Job job{};
  job.n_targets = n;
  for (uint32_t i = 0; i < n; ++i) {
    const Product& p = products[i];
    job.targets[i] = {static_cast<const uint8_t*>(p.w.codes), static_cast<const uint8_t*>(p.w.scales), p.w.zeros, p.bias, p.y, p.w.n, job.n_blocks};
    job.n_blocks += kernels::n_blocks(p.w.n);
  }
  const bool quantized = kernels::is_quantized(w.kind);
  job.rows = args.rows;
  job.k = w.k;
  job.tiles = tiles_of(w.k_padded);
  job.groups = quantized ? kernels::n_groups(w) : 0;
  job.group_steps = quantized ? w.group / step_columns : 0;
  job.kind = w.kind;
  job.scales_f32 = w.scales_f32;
  job.symmetric_zero = quantized && !w.zeros ? 1u << (kernels::bits_of(w.kind) - 1) : 0;
  job.accumulate = args.accumulate;
  job.exact = args.exact;
  job.perm = w.perm;
  job.input = args.input;
  return job;
}

void pack(const Job& job, Stream& stream) { stream.launch(pack_kernel, {job.rows, 1, 1, threads, warps * sizeof(float)}, job); }

void run_library(Job job, const Product* products, Cutter memory, Stream& stream) {
  job.plain = memory.take<uint16_t>(uint64_t{job.rows} * job.tiles * tile_columns);
  job.factors = memory.take<float>(job.rows);
  pack(job, stream);
  multiply_by_library(job, products, memory, stream);
}

void run(Job job, Cutter memory, Stream& stream) {
  const bool few = job.rows <= decode_rows_max;
  if (few) {
    job.parts = decode_parts(job, stream.capability);
    job.squares = memory.take<float>(uint64_t{job.parts} * job.rows);
  } else {
    job.columns = columns_of(job.rows, job.exact);
    job.parts = tile_parts(job, stream.n_processors);
    job.packed = memory.take<uint8_t>(uint64_t{job.tiles} * job.columns * packed_bytes);
    job.sums = memory.take<float>(uint64_t{job.tiles} * sums_per_tile(job) * job.columns);
    job.factors = memory.take<float>(job.rows);
    pack(job, stream);
  }
  job.partials = memory.take<float>(job.parts > 1 ? uint64_t{job.parts} * job.rows * job.n_blocks * block_rows : 0);
  few ? decode(job, stream) : multiply_tiles(job, stream);
  if (job.parts > 1) stream.launch(finish_kernel, {(job.n_blocks * block_rows + threads - 1) / threads, job.rows, 1, threads, 0}, job);
}

}  // namespace

void matmul(const MatmulArgs& args, Stream& stream) {
  for (uint32_t first = 0, n; first < args.n_products; first += n) {
    for (n = 1; first + n < args.n_products && alike(args.products[first].w, args.products[first + n].w);) ++n;
    const Job job = job_of(args, args.products + first, n);
    const Cutter memory{args.workspace.data};
    takes_library(job, args.way, stream) ? run_library(job, args.products + first, memory, stream) : run(job, memory, stream);
  }
}

namespace {

uint64_t own_bytes(const Shape& shape, uint32_t n_processors) {
  const uint32_t tiles = tiles_of(shape.k);
  const uint64_t outputs = shape.n + products_max * (block_rows - 1);
  uint64_t most = 0;
  for (uint32_t rows = 1; rows <= decode_rows_max && rows <= shape.rows; ++rows) {
    Cutter memory{nullptr};
    const uint64_t parts = decode_parts_max(rows, tiles, shape.exact);
    memory.take<float>(parts * rows);
    if (parts > 1) memory.take<float>(parts * rows * outputs);
    most = memory.used > most ? memory.used : most;
  }
  if (shape.rows <= decode_rows_max) return most;
  Cutter memory{nullptr};
  const uint64_t columns = columns_of(shape.rows, shape.exact);
  memory.take<uint8_t>(tiles * columns * packed_bytes);
  memory.take<float>(tiles * tile_steps * columns);
  memory.take<float>(shape.rows);
  memory.take<uint8_t>(tile_partials_bytes(n_processors));
  return memory.used > most ? memory.used : most;
}

}  // namespace

uint64_t matmul_workspace(const Shape& shape, const Stream& stream) {
  const uint64_t own = own_bytes(shape, stream.n_processors);
  if (!stream.gemm || !wants_library(shape, stream)) return own;
  Cutter memory{nullptr};
  memory.take<uint16_t>(uint64_t{shape.rows} * tiles_of(shape.k) * tile_columns);
  memory.take<float>(shape.rows);
  memory.take<uint8_t>(library_bytes(shape, stream));
  return memory.used > own ? memory.used : own;
}

}  // namespace gptq::cuda
