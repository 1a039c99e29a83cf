// SPDX-License-Identifier: Apache-2.0
// Products with many rows by cuBLASLt, some outputs at a time so that memory stays bounded: weights that are not float16 as they lie become it
// (what it cannot hold its largest), the library multiplies, and a kernel takes what came out to its place.
#include <algorithm>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/weights.h"

namespace gptq::cuda {
namespace {

using kernels::Matrix;

constexpr uint32_t threads = 256, columns_each = 4;
constexpr uint64_t weights_max = 32u << 20, values_max = 16u << 20;  // elements at a time: 64 MiB each

// From how many rows on. Not measured on a GPU. Hopper's matrix units work at their full rate for the library alone (wgmma).
constexpr uint32_t least_rows(bool dense, uint32_t capability) { return dense ? 128 : capability >= 90 ? 256 : 512; }

// Some outputs of a product.
struct Piece {
  Matrix w;
  uint32_t first, n, columns;
  uint16_t* weights;    // [n][columns]
  const float* values;  // [rows][stride]
  uint32_t stride;
};

// A thread takes four columns.
GPTQ_KERNEL(threads) void expand_kernel(Piece p) {
  wait_for_previous();
  let_next_begin();
  const uint64_t at = (uint64_t{block_x()} * threads + thread_index()) * columns_each;
  const uint32_t row = static_cast<uint32_t>(at / p.columns), column = static_cast<uint32_t>(at % p.columns);
  if (row >= p.n) return;
  float v[columns_each] = {};
  if (column < p.w.k_padded) four_weights(p.w, p.first + row, column, v);
  *reinterpret_cast<Vec2*>(p.weights + at) = {{half2_bits(fit_half(v[0]), fit_half(v[1])), half2_bits(fit_half(v[2]), fit_half(v[3]))}};
}

struct Taking {
  Job job;
  Piece piece;
  uint32_t target;
};

GPTQ_KERNEL(threads) void take_kernel(Taking t) {
  wait_for_previous();
  let_next_begin();
  const uint32_t i = block_x() * threads + thread_index(), token = block_y();
  if (i >= t.piece.n) return;
  const float value = t.piece.values[uint64_t{token} * t.piece.stride + i] * t.job.factors[token];
  store_row(t.job, t.job.targets[t.target], t.piece.first + i, token, value);
}

uint32_t columns_of(uint32_t k) { return tiles_of(k) * tile_columns; }

uint32_t piece_outputs(uint32_t n, uint32_t rows, uint32_t columns) {
  const uint64_t most = std::min(weights_max / columns, values_max / rows) / block_rows * block_rows;
  return static_cast<uint32_t>(std::clamp<uint64_t>(kernels::n_blocks(n) * block_rows, block_rows, std::max<uint64_t>(most, block_rows)));
}

// Whether the weights can be multiplied as they lie: rows begin at multiples of 16 bytes.
bool lies_ready(const Matrix& w) { return w.kind == kernels::Kind::f16 && w.k % 8 == 0 && reinterpret_cast<uintptr_t>(w.codes) % 16 == 0; }

}  // namespace

bool wants_library(const Shape& shape, const Stream& stream) {
  if (shape.exact || shape.way == Way::own) return false;
  return shape.way == Way::library || shape.rows >= least_rows(shape.dense, stream.capability);
}

// float16 has no room for what scales of float32 are needed for.
bool takes_library(const Job& job, Way way, const Stream& stream) {
  if (!stream.gemm || job.exact || job.scales_f32 || way == Way::own) return false;
  return way == Way::library || job.rows >= least_rows(!kernels::is_quantized(job.kind), stream.capability);
}

uint64_t library_bytes(const Shape& shape, const Stream& stream) {
  const uint64_t columns = columns_of(shape.k), n = kernels::n_blocks(shape.n) * block_rows;
  Cutter memory{nullptr};
  memory.take<uint16_t>(std::min(n * columns, std::max(weights_max, block_rows * columns)));
  memory.take<float>(std::min(n * shape.rows, std::max<uint64_t>(values_max, block_rows * shape.rows)));
  memory.take<uint8_t>(stream.gemm->workspace_bytes());
  return memory.used;
}

void multiply_by_library(const Job& job, const Product* products, Cutter memory, Stream& stream) {
  for (uint32_t i = 0; i < job.n_targets; ++i) {
    const Matrix& w = products[i].w;
    const bool ready = lies_ready(w);
    const uint32_t columns = columns_of(w.k_padded), outputs = piece_outputs(w.n, job.rows, columns);
    Cutter own = memory;
    Taking taking{job, {w, 0, 0, columns, own.take<uint16_t>(uint64_t{outputs} * columns), nullptr, outputs}, i};
    Piece& piece = taking.piece;
    float* values = own.take<float>(uint64_t{outputs} * job.rows);
    uint8_t* workspace = own.take<uint8_t>(stream.gemm->workspace_bytes());
    piece.values = values;
    for (piece.first = 0; piece.first < w.n; piece.first += outputs) {
      piece.n = std::min(outputs, w.n - piece.first);
      const uint64_t expanding = uint64_t{piece.n} * columns / columns_each;
      if (!ready) stream.launch(expand_kernel, {static_cast<uint32_t>((expanding + threads - 1) / threads), 1, 1, threads, 0}, piece);
      const uint16_t* weights = ready ? static_cast<const uint16_t*>(w.codes) + uint64_t{piece.first} * w.k : piece.weights;
      stream.gemm->multiply({weights, job.plain, values, piece.n, job.rows, ready ? w.k : columns, ready ? w.k : columns, columns, outputs},
                            workspace, stream.handle);
      stream.launch(take_kernel, {(piece.n + threads - 1) / threads, job.rows, 1, threads, 0}, taking);
    }
  }
}

}  // namespace gptq::cuda
