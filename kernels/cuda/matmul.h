// SPDX-License-Identifier: Apache-2.0
// What the kernels of the operation matmul share: products that differ in nothing but their weights and outputs, as one job.
#pragma once
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"

namespace gptq::cuda {

// Columns go by tiles of 64 and, where a group is no multiple of 64, by steps of 16: what one mma takes.
constexpr uint32_t tile_columns = 64, step_columns = 16, tile_steps = 4;
constexpr uint32_t block_rows = 16;
constexpr uint32_t decode_rows_max = 16;
constexpr uint32_t sector_bytes = 32;  // what memory is read by

// Memory cut off the workspace.
struct Cutter {
  uint8_t* at;
  uint64_t used = 0;
  template <class T>
  T* take(uint64_t count) {
    T* p = reinterpret_cast<T*>(at + used);
    used += (count * sizeof(T) + 255) / 256 * 256;
    return p;
  }
};

struct Target {
  const uint8_t* codes;
  const uint8_t* scales;
  const uint8_t* zeros;
  const float* bias;
  float* y;
  uint32_t n, first_block;  // of its 16-row blocks in the row of those of all targets
};

struct Job {
  Target targets[products_max];
  uint32_t n_targets, n_blocks;
  uint32_t rows, k, tiles;
  uint32_t groups, group_steps;
  kernels::Kind kind;
  bool scales_f32, accumulate, exact;
  uint32_t symmetric_zero;  // 0: targets have zeros
  const int32_t* perm;
  Input input;
  bool fours;               // inputs can be read four by four
  uint32_t stages;          // of a warp's weights on their way
  // K is done in parts, each by other thread blocks; more than one leave their sums for finish_kernel.
  uint32_t parts;
  float* partials;          // [parts][rows][16 * n_blocks]
  float* squares;           // [parts][rows]: sums of x^2; NULL: factors and norm are in the partials
  // Activations that are packed before: columns are tokens, with exact 8 of the high halves, then the same 8 of the low ones.
  uint8_t* packed;          // [tiles][columns][128]
  float* sums;              // [tiles][1 or 4][columns]: of a tile's or a step's columns
  float* factors;           // [rows]: what results are to be multiplied with; where plain mostly 1
  uint32_t columns;
  uint16_t* plain;          // or, for cuBLASLt, as they are: [rows][tile_columns * tiles]
};

constexpr bool by_steps(const Job& job) { return kernels::is_quantized(job.kind) && job.group_steps % tile_steps != 0; }
constexpr uint32_t sums_per_tile(const Job& job) { return !kernels::is_quantized(job.kind) ? 0 : by_steps(job) ? tile_steps : 1; }

// job.parts is decode_parts(), else rows_parts(), else tile_parts(). Activations are packed before, but where decode_columns() is 0.
uint32_t decode_parts(const Job& job, const Stream& stream);  // 0: too many rows, or more than shared memory holds
uint32_t decode_parts_max(uint32_t rows, uint32_t tiles, bool exact, uint32_t capability);
uint32_t decode_columns(uint32_t rows, bool exact);           // of packed activations
void decode(Job job, Stream& stream);
uint32_t rows_parts(const Job& job, const Stream& stream);  // 0: too many rows or sums
uint64_t rows_partials_bytes(uint32_t n_processors);        // at most
void multiply_rows(const Job& job, Stream& stream);
uint32_t tile_parts(const Job& job, uint32_t n_processors);
uint32_t tile_width(uint32_t columns);  // columns that a thread block takes
uint64_t tile_partials_bytes(uint32_t n_processors);  // at most
void multiply_tiles(const Job& job, Stream& stream);
// Activations of more rows, packed or plain; what is left to do where they are plain, after the products.
void pack(const Job& job, Stream& stream);
void mend(const Job& job, Stream& stream);
// By cuBLASLt; activations are plain.
bool takes_library(const Job& job, Way way, const Stream& stream);
uint64_t library_bytes(const Shape& shape, const Stream& stream);
void multiply_by_library(const Job& job, const Product* products, Cutter memory, Stream& stream);

constexpr uint32_t tiles_of(uint32_t columns) { return (columns + tile_columns - 1) / tile_columns; }

struct Range {
  uint32_t first, last;
};
// Of `count` things in a row, those of one of `of`.
GPTQ_DEVICE Range share(uint32_t count, uint32_t index, uint32_t of) {
  return {count / of * index + count % of * index / of, count / of * (index + 1) + count % of * (index + 1) / of};
}

GPTQ_DEVICE uint32_t target_of(const Job& job, uint32_t block) {
  uint32_t i = 0;
  while (i + 1 < job.n_targets && block >= job.targets[i + 1].first_block) ++i;
  return i;
}

// A finished sum to its place. row: of the target.
GPTQ_DEVICE void store_row(const Job& job, const Target& target, uint32_t row, uint32_t token, float value) {
  if (row >= target.n) return;
  float* y = target.y + uint64_t{token} * target.n + row;
  if (target.bias) value += target.bias[row];
  *y = job.accumulate ? *y + value : value;
}

// row: of all targets' blocks.
GPTQ_DEVICE void store_output(const Job& job, uint32_t row, uint32_t token, float value) {
  const Target& target = job.targets[target_of(job, row / block_rows)];
  store_row(job, target, row - target.first_block * block_rows, token, value);
}

GPTQ_DEVICE float* partial(const Job& job, uint32_t part, uint32_t row, uint32_t token) {
  return job.partials + (uint64_t{part} * job.rows + token) * (uint64_t{job.n_blocks} * block_rows) + row;
}

GPTQ_DEVICE float inverse_rms(const Job& job, float squares) { return 1.0f / sqrt_of(squares / static_cast<float>(job.k) + job.input.eps); }

}  // namespace gptq::cuda
