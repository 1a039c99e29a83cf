// SPDX-License-Identifier: Apache-2.0
// Activations of more than a few rows made ready for tensor cores: one token a thread block, which holds the row in registers. A thread
// takes four columns at a time: in a packed tile two words side by side (pack.h), as they are four float16.
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

constexpr uint32_t threads = 512, warps = threads / warp_size, columns_each = 4;
constexpr uint32_t fours_of_tile = tile_columns / columns_each;

enum class Source : uint8_t { plain, norm, silu };

// Whether four columns in a row are 16 bytes in a row.
GPTQ_DEVICE bool lies_straight(const Job& job) {
  const auto at = [](const float* p) { return reinterpret_cast<uintptr_t>(p); };
  return !job.perm && job.k % columns_each == 0 && (at(job.input.x) | at(job.input.norm) | at(job.input.up)) % 16 == 0;
}

// As right as float16 is; a division takes more instructions than all else.
GPTQ_DEVICE float quick_silu(float x) { return x * quick_reciprocal(1.0f + exp2_of(x * -1.44269504f)); }

// What a thread holds of a row: fours first, first + threads and so on.
template <Source source, uint32_t held>
struct Fours {
  float v[held][columns_each] = {};

  // Values but for the norm's 1 / rms, which factors out; adds x^2. All loads stand before the first use.
  GPTQ_MEMBER void load(const Job& job, uint32_t token, uint32_t first, bool straight, float& squares) {
    float beside[held][columns_each];
    const float* const x = job.input.x + uint64_t{token} * job.k;
    const float* const other = source == Source::norm ? job.input.norm : source == Source::silu ? job.input.up + uint64_t{token} * job.k : nullptr;
    if (straight) {
      GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j) take_four(x, (first + j * threads) * columns_each, job.k, v[j]);
      if constexpr (source != Source::plain) {
        GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j) take_four(other, (first + j * threads) * columns_each, job.k, beside[j]);
      }
    } else {
      GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j) gather_four(job, x, other, (first + j * threads) * columns_each, v[j], beside[j]);
    }
    GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j)
      GPTQ_UNROLL for (uint32_t i = 0; i < columns_each; ++i) {
        if constexpr (source == Source::silu) v[j][i] = (job.exact ? silu(v[j][i]) : quick_silu(v[j][i])) * beside[j][i];
        if constexpr (source == Source::norm) {
          squares = fused(v[j][i], v[j][i], squares);
          v[j][i] *= beside[j][i];
        }
      }
  }

  static GPTQ_MEMBER void take_four(const float* from, uint32_t column, uint32_t k, float (&to)[columns_each]) {
    Vec4 four{};
    if (column < k) four = *reinterpret_cast<const Vec4*>(from + column);
    GPTQ_UNROLL for (uint32_t i = 0; i < columns_each; ++i) to[i] = float_of_bits(four.v[i]);
  }
  static GPTQ_MEMBER void gather_four(const Job& job, const float* x, const float* other, uint32_t column, float (&to)[columns_each],
                                      float (&beside)[columns_each]) {
    GPTQ_UNROLL for (uint32_t i = 0; i < columns_each; ++i) {
      uint32_t from = column + i;
      if (job.perm) from = from < job.tiles * tile_columns ? static_cast<uint32_t>(job.perm[from]) : job.k;
      const bool exists = from < job.k;  // not padding, -1 among it
      to[i] = exists ? x[from] : 0.0f;
      beside[i] = exists && source != Source::plain ? other[from] : 0.0f;
    }
  }
};

// The largest value and the sum of squares of a block's threads, in every thread.
struct RowSize {
  float largest, squares;
};
GPTQ_DEVICE RowSize over_block(const RowSize& own) {
  float* const shared = reinterpret_cast<float*>(shared_memory());
  const RowSize of_warp{warp_max(own.largest), warp_sum(own.squares)};
  if (lane_index() == 0) {
    shared[warp_index()] = of_warp.largest;
    shared[warps + warp_index()] = of_warp.squares;
  }
  sync_block();
  RowSize all{shared[0], shared[warps]};
  for (uint32_t w = 1; w < warps; ++w) {
    all.largest = fmaxf(all.largest, shared[w]);
    all.squares += shared[warps + w];
  }
  return all;
}

// What a row is multiplied with, and what its results are to be multiplied with.
struct RowScale {
  float times, factor;
};

GPTQ_DEVICE RowScale packed_scale(const Job& job, const RowSize& size) {
  const int exponent = scale_exponent(size.largest);
  const float factor = power_of_two((kernels::is_quantized(job.kind) ? 24 : 0) - exponent);
  return {power_of_two(exponent), job.input.norm ? factor * inverse_rms(job, size.squares) : factor};
}

// cuBLASLt has no factor for a row. Where float16 has room for the values as they are they stay so; a row of which the largest lies
// outside of 2^-7 .. 2^15 takes a power of two, and its results are mended afterwards: those added to are multiplied with it before.
GPTQ_DEVICE RowScale plain_scale(const Job& job, const RowSize& size) {
  const float norm = job.input.norm ? inverse_rms(job, size.squares) : 1.0f;
  const int exponent = static_cast<int>(bits_of_float(size.largest * norm) >> 23) - 127;
  if (size.largest == 0.0f || (exponent >= -7 && exponent < 15)) return {norm, 1.0f};
  const int most = job.accumulate ? 60 : 100, wanted = 13 - exponent, up = wanted > most ? most : wanted < -most ? -most : wanted;
  return {norm * power_of_two(up), power_of_two(-up)};
}

GPTQ_DEVICE void scale_outputs(const Job& job, uint32_t token, float times) {
  for (uint32_t t = 0; t < job.n_targets; ++t) {
    float* const y = job.targets[t].y + uint64_t{token} * job.targets[t].n;
    for (uint32_t i = thread_index(); i < job.targets[t].n; i += threads) y[i] *= times;
  }
}

GPTQ_DEVICE void store_plain(const Job& job, uint32_t token, uint32_t four, const float (&v)[columns_each]) {
  uint16_t* const to = job.plain + uint64_t{token} * job.tiles * tile_columns + four * columns_each;
  *reinterpret_cast<Vec2*>(to) = {{half2_bits(v[0], v[1]), half2_bits(v[2], v[3])}};
}

// All lanes of a warp come, with 0 past the end.
GPTQ_DEVICE void store_packed(const Job& job, uint32_t token, uint32_t four, const float (&v)[columns_each]) {
  const uint32_t tile = four / fours_of_tile, step = four % fours_of_tile / 4, sums_of_tile = sums_per_tile(job);
  const uint32_t high_column = job.exact ? token / 8 * 16 + token % 8 : token, low_column = high_column + 8;
  const bool exists = tile < job.tiles;
  const Split even = split_pair(v[0], v[2]), odd = split_pair(v[1], v[3]);
  uint32_t* const words = reinterpret_cast<uint32_t*>(job.packed + uint64_t{tile} * job.columns * packed_bytes) +
                          packed_word(four % 4 * 8 + step * 2, token);
  if (exists) *reinterpret_cast<Vec2*>(words + high_column * (packed_bytes / 4)) = {{even.high, odd.high}};
  if (exists && job.exact) *reinterpret_cast<Vec2*>(words + low_column * (packed_bytes / 4)) = {{even.low, odd.low}};
  if (!sums_of_tile) return;
  const auto over_lanes = [&](float sum) {
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    if (sums_of_tile > 1) return sum * 0x1p-24f;
    sum += shuffle_xor(sum, 4);
    return (sum + shuffle_xor(sum, 8)) * 0x1p-24f;
  };
  const float high = over_lanes(even.high_sum + odd.high_sum), low = job.exact ? over_lanes(even.low_sum + odd.low_sum) : 0.0f;
  if (!exists || four % (fours_of_tile / sums_of_tile)) return;
  float* const sums = job.sums + (uint64_t{tile} * sums_of_tile + (sums_of_tile > 1 ? step : 0)) * job.columns;
  sums[high_column] = high;
  if (job.exact) sums[low_column] = low;
}

// Rows longer than a block holds go by chunks, read once more for all chunks but the last.
template <Source source, uint32_t held>
GPTQ_KERNEL_FITS(threads, held < 8 ? 2 : 1) void pack_kernel(Job job) {
  let_next_begin();
  constexpr uint32_t chunk = threads * held;
  const uint32_t token = block_x(), n_chunks = (job.tiles * fours_of_tile + chunk - 1) / chunk;
  const bool straight = lies_straight(job);
  if constexpr (source == Source::norm) {
    for (uint32_t i = thread_index() * 32; i < job.k; i += threads * 32) prefetch_l2(job.input.norm + i);
  }
  wait_for_previous();
  Fours<source, held> fours;
  RowSize size{0.0f, 0.0f};
  RowScale scale{1.0f, 1.0f};
  GPTQ_ROLLED for (uint32_t i = 0; i < 2 * n_chunks; ++i) {
    const bool measures = i < n_chunks;
    const uint32_t first = (measures ? i : 2 * n_chunks - 1 - i) * chunk + thread_index();
    if (i != n_chunks) fours.load(job, token, first, straight, size.squares);  // else it is the last chunk, which is there still
    if (measures) {
      GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j)
        GPTQ_UNROLL for (uint32_t k = 0; k < columns_each; ++k) size.largest = fmaxf(size.largest, fabsf(fours.v[j][k]));
      if (i + 1 < n_chunks) continue;
      size = over_block(size);
      scale = job.plain ? plain_scale(job, size) : packed_scale(job, size);
      if (thread_index() == 0) job.factors[token] = scale.factor;
      if (job.plain && job.accumulate && scale.factor != 1.0f) scale_outputs(job, token, 1.0f / scale.factor);
      continue;
    }
    GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j) {
      const uint32_t four = first + j * threads;
      GPTQ_UNROLL for (uint32_t k = 0; k < columns_each; ++k) fours.v[j][k] *= scale.times;
      if (!job.plain) store_packed(job, token, four, fours.v[j]);
      else if (four < job.tiles * fours_of_tile) store_plain(job, token, four, fours.v[j]);
    }
  }
}

// Rows for cuBLASLt that nothing is to be known of before: written as they are; the few that float16 has no room for are written again.
template <Source source>
GPTQ_KERNEL_FITS(threads, 2) void plain_kernel(Job job) {
  constexpr uint32_t held = 2;
  let_next_begin();
  const uint32_t token = block_x(), fours_of_row = job.tiles * fours_of_tile;
  const bool straight = lies_straight(job);
  wait_for_previous();
  RowSize size{0.0f, 0.0f};
  const auto write = [&](float times) {
    GPTQ_ROLLED for (uint32_t first = thread_index(); first < fours_of_row; first += held * threads) {
      Fours<source, held> fours;
      fours.load(job, token, first, straight, size.squares);
      GPTQ_UNROLL for (uint32_t j = 0; j < held; ++j) {
        GPTQ_UNROLL for (uint32_t k = 0; k < columns_each; ++k) {
          size.largest = fmaxf(size.largest, fabsf(fours.v[j][k]));
          fours.v[j][k] *= times;
        }
        if (first + j * threads < fours_of_row) store_plain(job, token, first + j * threads, fours.v[j]);
      }
    }
  };
  float times = 1.0f;
  GPTQ_ROLLED for (uint32_t i = 0; i < 2; ++i) {
    write(times);
    if (i) return;
    size = over_block(size);
    const RowScale scale = plain_scale(job, size);
    if (thread_index() == 0) job.factors[token] = scale.factor;
    if (scale.factor == 1.0f) return;
    times = scale.times;
    if (job.accumulate) scale_outputs(job, token, 1.0f / scale.factor);
  }
}

constexpr uint32_t mended_at_once = 8;

// Bias, and rows that took a power of two: after cuBLASLt. Mostly there is nothing to do.
GPTQ_KERNEL(threads) void mend_kernel(Job job) {
  let_next_begin();
  wait_for_previous();
  const uint32_t first = block_x() * mended_at_once, lane = lane_index();
  const float own = lane < mended_at_once && first + lane < job.rows ? job.factors[first + lane] : 1.0f;
  bool any = ballot(own != 1.0f) != 0;
  for (uint32_t t = 0; t < job.n_targets; ++t) any = any || job.targets[t].bias;
  if (!any) return;
  for (uint32_t token = first; token < first + mended_at_once && token < job.rows; ++token) {
    const float factor = job.factors[token];
    for (uint32_t t = 0; t < job.n_targets; ++t) {
      const Target& target = job.targets[t];
      if (factor == 1.0f && !target.bias) continue;
      float* const y = target.y + uint64_t{token} * target.n;
      for (uint32_t i = thread_index(); i < target.n; i += threads) y[i] = fused(y[i], factor, target.bias ? target.bias[i] : 0.0f);
    }
  }
}

template <Source source>
void launch(const Job& job, Stream& stream) {
  const LaunchShape shape{job.rows, 1, 1, threads, 2 * warps * sizeof(float)};
  const uint32_t fours = job.tiles * fours_of_tile;
  if constexpr (source != Source::norm)
    if (job.plain) return stream.launch(plain_kernel<source>, shape, job);
  if (fours <= 2 * threads) stream.launch(pack_kernel<source, 2>, shape, job);
  else if (fours <= 4 * threads) stream.launch(pack_kernel<source, 4>, shape, job);
  else stream.launch(pack_kernel<source, 8>, shape, job);
}

}  // namespace

void pack(const Job& job, Stream& stream) {
  job.input.norm ? launch<Source::norm>(job, stream) : job.input.up ? launch<Source::silu>(job, stream) : launch<Source::plain>(job, stream);
}

void mend(const Job& job, Stream& stream) { stream.launch(mend_kernel, {(job.rows + mended_at_once - 1) / mended_at_once, 1, 1, threads, 0}, job); }

}  // namespace gptq::cuda
