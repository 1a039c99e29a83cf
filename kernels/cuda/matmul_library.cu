// SPDX-License-Identifier: Apache-2.0
// Many rows by cuBLASLt: weights are written out as float16, some products or some outputs of one at a time, and multiplied from there
// straight to where their results belong.
#include <algorithm>

#include "kernels/cuda/fragments.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/weights.h"

namespace gptq::cuda {
namespace {

using kernels::Matrix;

constexpr uint32_t threads = 256, warps = threads / warp_size, columns_each = 4;
constexpr uint64_t weights_max = 64u << 20;  // elements at a time: 128 MiB, a matrix of a model of 8 billion weights

// Tera a second: bytes of memory, operations of our kernels and of cuBLASLt. Only Hopper's were measured (an H200).
struct Speed {
  double bytes, own, library;
};
constexpr Speed speed_of(uint32_t capability) {
  return capability >= 90 && capability < 120 ? Speed{3.3, 200, 650} : capability == 80 ? Speed{1.7, 120, 240} : Speed{0.8, 90, 130};
}

// From how many rows on it is quicker, although every weight is read and written as float16 before. 16 bits that lie ready are not; but
// what is recorded (gpu_part.cpp) goes without the library, which may load its kernels only when they are first used.
constexpr uint32_t least_rows(kernels::Kind kind, uint32_t capability) {
  if (kind == kernels::Kind::f16) return 65;
  const Speed speed = speed_of(capability);
  const double bytes = kernels::bits_of(kind) / 8.0 + 2;
  return static_cast<uint32_t>(bytes / speed.bytes / (2 / speed.own - 2 / speed.library));
}

// Blocks of a job from one on, expanded one behind another.
struct Expansion {
  Job job;
  uint32_t first_block, n_blocks;
  uint16_t* weights;  // [16 * n_blocks][64 * tiles]
};

// Codes become 1024 + code as float16; without the zero and times the scale they are as right as float16 can be. Infinite becomes 65504.
struct Expander {
  uint32_t scale, minus;
  GPTQ_MEMBER void open(const Job& job, const Target& target, uint64_t at) {
    scale = reinterpret_cast<const uint16_t*>(target.scales)[at] * 0x10001u;
    minus = (0x6400 | (job.symmetric_zero ? job.symmetric_zero : target.zeros[at])) * 0x10001u;
  }
  GPTQ_MEMBER uint32_t operator()(uint32_t codes) const {
    const uint32_t weights = half2_times(half2_minus(codes | 0x64006400, minus), scale);
    return weights - ((((weights & 0x7fff7fff) + 0x04000400) & 0x80008000) >> 15);
  }
};

constexpr uint32_t line_chunks = 8;  // a row of a tile is 8 chunks of 16 bytes; those of some rows change places, so that all banks are met
GPTQ_DEVICE uint32_t chunk_byte(uint32_t row, uint32_t chunk) { return (row * line_chunks + (chunk ^ row % 4 * 2)) * 16; }

// A tile's 16 x 64 weights as rows of 128 bytes, of which a warp writes four at a time.
template <class Form>
GPTQ_DEVICE void expand_tile(const Job& job, const typename Form::Raw& raw, uint32_t target, uint32_t block, uint32_t tile, uint8_t* lines, uint16_t* to) {
  const uint32_t lane = lane_index(), g = lane / 4, t = lane % 4, columns = job.tiles * tile_columns;
  Expander expand[2];
  GPTQ_UNROLL for (uint32_t c = 0; c < tile_steps; ++c) {
    if (c == 0 || by_steps(job)) {
      const uint64_t at = (uint64_t{block} * job.groups + (tile * tile_steps + c) / job.group_steps) * block_rows + g;
      GPTQ_UNROLL for (uint32_t r = 0; r < 2; ++r) expand[r].open(job, job.targets[target], at + 8 * r);
    }
    uint32_t a[4];
    Form::operand(job, raw, c, a);
    GPTQ_UNROLL for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t shift = r && Form::lower_rows > 1 ? 4 : 0;
      const uint32_t even = expand[r](a[r] >> shift), odd = expand[r](a[2 + r] >> shift);  // columns 0 and 2, 1 and 3 of four
      *reinterpret_cast<Vec2*>(lines + chunk_byte(g + 8 * r, 2 * c + t / 2) + t % 2 * 8) = {
          {(even & 0xffff) | odd << 16, even >> 16 | (odd & 0xffff0000)}};
    }
  }
  sync_warp();
  GPTQ_UNROLL for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = 4 * i + lane / line_chunks, chunk = lane % line_chunks;
    *reinterpret_cast<Vec4*>(to + uint64_t{row} * columns + chunk * 8) = *reinterpret_cast<const Vec4*>(lines + chunk_byte(row, chunk));
  }
  sync_warp();
}

constexpr uint32_t tiles_each = 2;

// A warp takes two tiles, whose codes it asks for before the kernel ends that reads what it writes over.
template <class Form>
GPTQ_KERNEL_FITS(threads, 4) void expand_kernel(Expansion e) {
  let_next_begin();
  const Job& job = e.job;
  const uint32_t index = block_x() * warps + warp_index(), groups = (job.tiles + tiles_each - 1) / tiles_each;
  const uint32_t done = index / groups, tile = index % groups * tiles_each, block = e.first_block + done;
  const uint32_t n = done >= e.n_blocks ? 0 : job.tiles - tile < tiles_each ? job.tiles - tile : tiles_each;
  const uint32_t target = n ? target_of(job, block) : 0, in_target = block - job.targets[target].first_block;
  typename Form::Raw raw[tiles_each];
  Form form;
  if (n) form.open(job, job.targets[target], in_target, tile);
  GPTQ_UNROLL for (uint32_t i = 0; i < tiles_each; ++i)
    if (i < n) form.next(job, raw[i]);
  wait_for_previous();
  uint8_t* const lines = shared_memory() + warp_index() * (block_rows * packed_bytes);
  uint16_t* const to = e.weights + uint64_t{done} * block_rows * job.tiles * tile_columns;
  GPTQ_UNROLL for (uint32_t i = 0; i < tiles_each; ++i)
    if (i < n) expand_tile<Form>(job, raw[i], target, in_target, tile + i, lines, to + (tile + i) * tile_columns);
}

struct DenseExpansion {
  Matrix w;
  uint32_t first, n, columns;
  uint16_t* weights;  // [n][columns]
};

// Matrices of 16 and 32 bits that do not lie ready: a thread takes four columns.
GPTQ_KERNEL(threads) void expand_dense_kernel(DenseExpansion e) {
  wait_for_previous();
  let_next_begin();
  const uint64_t at = (uint64_t{block_x()} * threads + thread_index()) * columns_each;
  const uint32_t row = static_cast<uint32_t>(at / e.columns), column = static_cast<uint32_t>(at % e.columns);
  if (row >= e.n) return;
  float v[columns_each] = {};
  if (column < e.w.k_padded) four_weights(e.w, e.first + row, column, v);
  *reinterpret_cast<Vec2*>(e.weights + at) = {{half2_bits(fit_half(v[0]), fit_half(v[1])), half2_bits(fit_half(v[2]), fit_half(v[3]))}};
}

template <class Form>
void launch_expand(const Expansion& e, Stream& stream) {
  const uint32_t n_warps = e.n_blocks * ((e.job.tiles + tiles_each - 1) / tiles_each);
  stream.launch(expand_kernel<Form>, {(n_warps + warps - 1) / warps, 1, 1, threads, warps * block_rows * packed_bytes}, e);
}

uint32_t blocks_of(const Target& target) { return kernels::n_blocks(target.n); }

// Outputs first .. first + n of one product, or all of several.
struct Piece {
  uint32_t target, n_targets, first, n;
};

void expand(const Job& job, const Product* products, const Piece& piece, uint16_t* weights, Stream& stream) {
  const uint32_t first_block = job.targets[piece.target].first_block;
  if (!kernels::is_quantized(job.kind)) {
    const uint32_t columns = job.tiles * tile_columns;
    for (uint32_t i = 0; i < piece.n_targets; ++i) {
      const uint32_t t = piece.target + i, n = piece.n_targets > 1 ? job.targets[t].n : piece.n;
      uint16_t* const to = weights + uint64_t{job.targets[t].first_block - first_block} * block_rows * columns;
      const uint64_t fours = uint64_t{n} * columns / columns_each;
      stream.launch(expand_dense_kernel, {static_cast<uint32_t>((fours + threads - 1) / threads), 1, 1, threads, 0},
                    DenseExpansion{products[t].w, piece.first, n, columns, to});
    }
    return;
  }
  const Target& last = job.targets[piece.target + piece.n_targets - 1];
  const uint32_t n_blocks = piece.n_targets > 1 ? last.first_block + blocks_of(last) - first_block : kernels::n_blocks(piece.n);
  const Expansion e{job, first_block + piece.first / block_rows, n_blocks, weights};
  switch (job.kind) {
    case kernels::Kind::q4: return launch_expand<Q4>(e, stream);
    case kernels::Kind::q8: return launch_expand<Q8>(e, stream);
    default: return launch_expand<Q23>(e, stream);
  }
}

// Whether the weights can be multiplied as they lie: rows begin at multiples of 16 bytes.
bool lies_ready(const Job& job, const Target& target) {
  return job.kind == kernels::Kind::f16 && job.k % 8 == 0 && reinterpret_cast<uintptr_t>(target.codes) % 16 == 0;
}

// How many of the piece's products from one on can be one call: of one size, their outputs equally far apart.
uint32_t alike_from(const Job& job, const Piece& piece, uint32_t first, uint64_t* step) {
  const auto y = [&](uint32_t t) { return reinterpret_cast<uintptr_t>(job.targets[t].y) / sizeof(float); };
  const uint32_t end = piece.target + piece.n_targets;
  uint32_t n = 1;
  *step = 0;
  for (; first + n < end && job.targets[first + n].n == job.targets[first].n && job.targets[first].n % block_rows == 0; ++n) {
    const uint64_t apart = y(first + n) - y(first + n - 1);
    if (y(first + n) < y(first + n - 1) + job.targets[first].n || apart % 4 || (n > 1 && apart != *step)) break;
    *step = apart;
  }
  return n;
}

void multiply(const Job& job, const Piece& piece, const uint16_t* expanded, uint8_t* workspace, Stream& stream) {
  const uint32_t columns = job.tiles * tile_columns;
  for (uint32_t t = piece.target, n; t < piece.target + piece.n_targets; t += n) {
    const Target& target = job.targets[t];
    const bool ready = lies_ready(job, target), whole = piece.n_targets > 1;
    uint64_t d_step = 0;
    n = ready ? 1 : alike_from(job, piece, t, &d_step);
    const uint32_t depth = ready ? job.k : columns, outputs = whole ? target.n : piece.n;
    const uint64_t behind = uint64_t{target.first_block - job.targets[piece.target].first_block} * block_rows * columns;
    const uint16_t* weights = ready ? reinterpret_cast<const uint16_t*>(target.codes) + uint64_t{piece.first} * job.k : expanded + behind;
    const GemmShape shape{.n = outputs, .tokens = job.rows, .depth = depth, .weights_stride = depth, .x_stride = columns, .d_stride = target.n,
                          .batches = n, .weights_step = n > 1 ? uint64_t{outputs} * columns : 0, .d_step = n > 1 ? d_step : 0};
    stream.gemm->multiply({weights, job.plain, target.y + piece.first, job.accumulate, shape}, workspace, stream.handle);
  }
}

// Outputs of a product that has more than `most`: so many that the library's thread blocks, 128 of them and 256 tokens each, leave few
// multiprocessors without work.
uint32_t outputs_at_once(uint32_t n, uint32_t most, uint32_t rows, uint32_t n_processors) {
  if (n <= most) return n;
  const auto turns = [&](uint32_t outputs) { return ((outputs + 127) / 128 * ((rows + 255) / 256) + n_processors - 1) / n_processors; };
  uint32_t best = most, least = UINT32_MAX;
  for (uint32_t outputs = most; outputs > most / 2 && outputs >= 128; outputs = (outputs - 1) / 128 * 128) {
    const uint32_t all = n / outputs * turns(outputs) + turns(n % outputs);
    if (all < least) best = outputs;
    least = std::min(least, all);
  }
  return best;
}

uint32_t outputs_max(uint32_t columns) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(weights_max / columns / block_rows * block_rows, block_rows, 1u << 24));
}

}  // namespace

bool wants_library(const Shape& shape, const Stream& stream) {
  if (shape.exact || shape.way == Way::own) return false;
  return shape.way == Way::library || shape.rows >= least_rows(shape.dense ? kernels::Kind::f16 : kernels::Kind::q2, stream.capability);
}

// float16 has no room for what scales of float32 are needed for. Outputs begin at multiples of 16 bytes.
bool takes_library(const Job& job, Way way, const Stream& stream) {
  if (!stream.gemm || job.exact || job.scales_f32 || way == Way::own) return false;
  bool ready = true;
  for (uint32_t i = 0; i < job.n_targets; ++i) {
    if (job.targets[i].n % 4 || reinterpret_cast<uintptr_t>(job.targets[i].y) % 16) return false;
    ready = ready && lies_ready(job, job.targets[i]);
  }
  return way == Way::library || job.rows >= least_rows(job.kind == kernels::Kind::f16 && !ready ? kernels::Kind::bf16 : job.kind, stream.capability);
}

uint64_t library_bytes(const Shape& shape, const Stream& stream) {
  const uint64_t columns = tiles_of(shape.k) * tile_columns, n = kernels::n_blocks(shape.n) + products_max - 1;
  Cutter memory{nullptr};
  memory.take<uint16_t>(std::min(n * block_rows * columns, std::max(weights_max, block_rows * columns)));
  memory.take<uint8_t>(stream.gemm->workspace_bytes());
  return memory.used;
}

void multiply_by_library(const Job& job, const Product* products, Cutter memory, Stream& stream) {
  const uint32_t columns = job.tiles * tile_columns, most = outputs_max(columns);
  uint16_t* const weights = memory.take<uint16_t>(uint64_t{std::min(job.n_blocks * block_rows, most)} * columns);
  uint8_t* const workspace = memory.take<uint8_t>(stream.gemm->workspace_bytes());
  for (uint32_t t = 0, n; t < job.n_targets; t += n) {
    const auto blocks = [&](uint32_t end) { return job.targets[end - 1].first_block + blocks_of(job.targets[end - 1]) - job.targets[t].first_block; };
    for (n = 1; t + n < job.n_targets && blocks(t + n + 1) * block_rows <= most;) ++n;
    bool ready = true;
    for (uint32_t i = t; i < t + n; ++i) ready = ready && lies_ready(job, job.targets[i]);
    const uint32_t outputs = ready || n > 1 ? job.targets[t].n : outputs_at_once(job.targets[t].n, most, job.rows, stream.n_processors);
    for (uint32_t first = 0; first < job.targets[t].n; first += outputs) {
      const Piece piece{t, n, first, std::min(outputs, job.targets[t].n - first)};
      if (!ready) expand(job, products, piece, weights, stream);
      multiply(job, piece, weights, workspace, stream);
    }
  }
}

}  // namespace gptq::cuda
