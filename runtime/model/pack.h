// SPDX-License-Identifier: Apache-2.0
// Weights as importers and the quantizer give them -> the bytes of the parts of one tensor of the file.
#pragma once
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <string_view>
#include <vector>

#include "base/threads.h"
#include "format/container.h"
#include "kernels/kernels.h"

namespace gptq::model {

// Inputs and outputs in the runtime's order (rotary pairs j, j + dim/2); n and k are the slot's.
// w[row][input] = scale[row][g] * (code - zero[row][g]), g the group of the input.
struct QuantizedWeight {
  explicit QuantizedWeight(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : codes(memory), zeros(memory), scales(memory), g_idx(memory) {}
  uint32_t bits = 0;                // 2, 3, 4, 8
  int32_t group_size = 0;           // as stated; -1 = one group
  uint32_t n_groups = 0;
  std::pmr::vector<uint8_t> codes;  // [n][k], each below 2^bits
  std::pmr::vector<uint8_t> zeros;  // [n][n_groups], each at most 255; empty = 2^(bits-1) everywhere
  std::pmr::vector<float> scales;   // [n][n_groups]
  std::pmr::vector<int32_t> g_idx;  // [k], each in 0..n_groups-1; empty = input / group_size
};

struct PackedTensor {
  explicit PackedTensor(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : codes(memory), scales(memory), zeros(memory), perm(memory) {}
  kernels::Matrix matrix(uint32_t n, uint32_t k) const;  // views the vectors
  kernels::Kind kind = kernels::Kind::f32;
  uint32_t k_padded = 0, group = 0;
  bool scales_f32 = false;
  std::pmr::vector<std::byte> codes, scales;
  std::pmr::vector<uint8_t> zeros;   // empty: symmetric
  std::pmr::vector<int32_t> perm;    // empty: columns are inputs
};

// name is for messages. The weight's sizes are checked against n and k.
PackedTensor pack_quantized(std::string_view name, const QuantizedWeight& weight, uint32_t n, uint32_t k, base::Pool& pool,
                            std::pmr::memory_resource* memory = std::pmr::get_default_resource());

// Appends the parts to the file and gives the manifest's entry. codes: how codes are stored; what comes with them is small and always
// compressed. group_size: as stated; 0 where nothing is quantized.
std::unique_ptr<format::fb::TensorT> write_tensor(format::Writer& writer, std::string_view name, uint32_t n, uint32_t k, int32_t group_size,
                                                  const PackedTensor& packed, format::Compression codes);

}  // namespace gptq::model
