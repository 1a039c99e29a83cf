// SPDX-License-Identifier: Apache-2.0
// Rows of the embedding table. A thread takes four columns: four bytes of a line, one scale.
#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

using kernels::Kind;
using kernels::Matrix;

constexpr uint32_t threads = 256, columns_each = 4;

GPTQ_DEVICE float element(const void* data, uint64_t index, Kind kind) {
  if (kind == Kind::f32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return kind == Kind::f16 ? half_value(bits) : bf16_value(bits);
}

// The codes of four columns, one in each byte.
GPTQ_DEVICE uint32_t four_codes(const Matrix& w, uint32_t row, uint32_t column) {
  const uint64_t tile = uint64_t{row} / 16 * (w.k_padded / 64) + column / 64;
  const uint8_t* codes = static_cast<const uint8_t*>(w.codes) + tile * kernels::tile_bytes(w.kind) + kernels::line_byte(column % 64);
  const auto line = [&](uint32_t i) { return *reinterpret_cast<const uint32_t*>(codes + 64 * i); };
  const uint32_t r = row % 16, nibble = r / 8 * 4, g = r % 8;
  if (w.kind == Kind::q8) return line(r);
  if (w.kind == Kind::q4) return line(g) >> nibble & 0x0f0f0f0f;
  const uint32_t low = line(g % 4) >> (nibble + g / 4 * 2) & 0x03030303;
  return w.kind == Kind::q2 ? low : low | (line(4 + g / 4) >> (nibble + g % 4) & 0x01010101) << 2;
}

GPTQ_KERNEL(threads) void embed_kernel(EmbedArgs a) {
  wait_for_previous();
  const Matrix& w = a.table;
  const uint32_t row = static_cast<uint32_t>(a.batch.tokens[block_x()]);
  float* x = a.x + uint64_t{block_x()} * w.k;
  const uint32_t begin = (block_y() * threads + thread_index()) * columns_each;
  for (uint32_t i = 0; !kernels::is_quantized(w.kind) && i < columns_each && begin + i < w.k; ++i)
    x[begin + i] = element(w.codes, uint64_t{row} * w.k + begin + i, w.kind);
  if (kernels::is_quantized(w.kind) && begin < w.k_padded) {
    const uint64_t group = (uint64_t{row} / 16 * kernels::n_groups(w) + begin / w.group) * 16 + row % 16;
    const int zero = w.zeros ? w.zeros[group] : 1 << (kernels::bits_of(w.kind) - 1);
    const float scale = element(w.scales, group, w.scales_f32 ? Kind::f32 : Kind::f16);
    const uint32_t codes = four_codes(w, row, begin);
    for (uint32_t i = 0; i < columns_each; ++i) {
      const int input = w.perm ? w.perm[begin + i] : begin + i < w.k ? static_cast<int>(begin + i) : -1;
      if (input >= 0) x[input] = scale * static_cast<float>(static_cast<int>(codes >> (8 * i) & 0xff) - zero);
    }
  }
  let_next_begin();
}

}  // namespace

void embed(const EmbedArgs& args, Stream& stream) {
  const uint32_t columns = threads * columns_each;
  stream.launch(embed_kernel, {args.batch.n_rows, (args.table.k_padded + columns - 1) / columns, 1, threads, 0}, args);
}

}  // namespace gptq::cuda
