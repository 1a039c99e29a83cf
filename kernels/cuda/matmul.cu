// SPDX-License-Identifier: Apache-2.0
// The operation matmul: which products go together, the workspace, and the kernels before and after those that multiply.
#include "kernels/cuda/matmul.h"

#include <algorithm>

#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

using kernels::Matrix;

constexpr uint32_t threads = 256;

// Adds the parts of K up, in their order.
GPTQ_KERNEL(threads) void finish_kernel(Job job) {
  wait_for_previous();
  let_next_begin();
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
}

uint32_t round_up(uint32_t columns, uint32_t width) { return (columns + width - 1) / width * width; }
// Columns of `rows` packed rows, to whole thread blocks of any kernel, or of the one that takes 16 or 32.
uint32_t used_columns(uint32_t rows, bool exact) { return exact ? round_up(rows, 8) * 2 : rows; }
uint32_t columns_of(uint32_t rows, bool exact) {
  const uint32_t columns = used_columns(rows, exact);
  return round_up(columns, tile_width(columns));
}
uint32_t few_columns_of(uint32_t rows, bool exact) { return !exact && rows <= 16 ? 16 : round_up(used_columns(rows, exact), 32); }

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

void run_library(Job job, const Product* products, Cutter memory, Stream& stream) {
  job.plain = memory.take<uint16_t>(uint64_t{job.rows} * job.tiles * tile_columns);
  job.factors = memory.take<float>(job.rows);
  pack(job, stream);
  multiply_by_library(job, products, memory, stream);
  mend(job, stream);
}

void run(Job job, Cutter memory, Stream& stream) {
  job.parts = decode_parts(job, stream);
  const bool few = job.parts > 0;
  bool by_rows = false;
  if (few) {
    job.columns = decode_columns(job.rows, job.exact);
    if (!job.columns) job.squares = memory.take<float>(uint64_t{job.parts} * job.rows);
  } else {
    job.exact |= !decode_columns(job.rows, job.exact);  // decode's few rows have both halves, whichever kernel takes them
    job.columns = few_columns_of(job.rows, job.exact);
    job.parts = rows_parts(job, stream);
    by_rows = job.parts > 0;
    if (!by_rows) {
      job.columns = columns_of(job.rows, job.exact);
      job.parts = tile_parts(job, stream.n_processors);
    }
  }
  if (job.columns) {
    job.packed = memory.take<uint8_t>(uint64_t{job.tiles} * job.columns * packed_bytes);
    job.sums = memory.take<float>(uint64_t{job.tiles} * sums_per_tile(job) * job.columns);
    job.factors = memory.take<float>(job.rows);
    pack(job, stream);
  }
  job.partials = memory.take<float>(job.parts > 1 ? uint64_t{job.parts} * job.rows * job.n_blocks * block_rows : 0);
  few ? decode(job, stream) : by_rows ? multiply_rows(job, stream) : multiply_tiles(job, stream);
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

uint64_t own_bytes(const Shape& shape, const Stream& stream) {
  const uint32_t tiles = tiles_of(shape.k);
  const uint64_t outputs = shape.n + products_max * (block_rows - 1);
  uint64_t most = 0;
  for (uint32_t rows = 1; rows <= decode_rows_max && rows <= shape.rows; ++rows) {
    Cutter memory{nullptr};
    const uint64_t parts = decode_parts_max(rows, tiles, shape.exact, stream.capability), columns = decode_columns(rows, shape.exact);
    memory.take<float>(parts * rows);
    memory.take<uint8_t>(tiles * columns * packed_bytes);
    memory.take<float>(tiles * tile_steps * columns);
    memory.take<float>(rows);
    if (parts > 1) memory.take<float>(parts * rows * outputs);
    most = memory.used > most ? memory.used : most;
  }
  Cutter memory{nullptr};
  const uint64_t columns = std::max(columns_of(shape.rows, shape.exact), few_columns_of(1, true));
  memory.take<uint8_t>(tiles * columns * packed_bytes);
  memory.take<float>(tiles * tile_steps * columns);
  memory.take<float>(shape.rows);
  const uint64_t by_rows = rows_partials_bytes(stream.n_processors), by_tiles = tile_partials_bytes(stream.n_processors);
  memory.take<uint8_t>(by_rows > by_tiles ? by_rows : by_tiles);
  return memory.used > most ? memory.used : most;
}

}  // namespace

uint64_t matmul_workspace(const Shape& shape, const Stream& stream) {
  const uint64_t own = own_bytes(shape, stream);
  if (!stream.gemm || !wants_library(shape, stream)) return own;
  Cutter memory{nullptr};
  memory.take<uint16_t>(uint64_t{shape.rows} * tiles_of(shape.k) * tile_columns);
  memory.take<float>(shape.rows);
  memory.take<uint8_t>(library_bytes(shape, stream));
  return memory.used > own ? memory.used : own;
}

}  // namespace gptq::cuda
