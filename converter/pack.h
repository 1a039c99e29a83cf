// SPDX-License-Identifier: Apache-2.0
// Weights as importers give them -> the bytes of the parts of one tensor of the file.
#pragma once
#include "base/threads.h"
#include "converter/source.h"

namespace gptq::convert {

struct PackedTensor {
  kernels::Kind kind = kernels::Kind::f32;
  uint32_t k_padded = 0, group = 0;
  bool scales_f32 = false;
  std::vector<std::byte> codes, scales;
  std::vector<uint8_t> zeros;   // empty: symmetric
  std::vector<int32_t> perm;    // empty: columns are inputs
};

// name is for messages. The weight's sizes are checked against n and k.
PackedTensor pack_quantized(std::string_view name, const QuantizedWeight& weight, uint32_t n, uint32_t k, base::Pool& pool);
PackedTensor pack_dense(std::string_view name, DenseWeight&& weight, uint32_t n, uint32_t k);
// A vector becomes float32.
PackedTensor pack_vector(std::string_view name, const DenseWeight& weight, uint32_t n);

}  // namespace gptq::convert
