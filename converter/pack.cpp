// SPDX-License-Identifier: Apache-2.0
#include "converter/pack.h"

#include <cstring>

#include "base/checked.h"
#include "converter/floats.h"

namespace gptq::convert {

using base::fail;
using kernels::Kind;

PackedTensor pack_dense(std::string_view name, const DenseWeight& weight, uint32_t n, uint32_t k) {
  if (weight.bytes.size() != base::mul(n, k, kernels::bits_of(weight.kind) / 8))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': ", weight.bytes.size(), " bytes do not fit ", n, " x ", k);
  PackedTensor out;
  out.kind = weight.kind;
  out.k_padded = k;
  out.codes.assign(weight.bytes.begin(), weight.bytes.end());
  return out;
}

PackedTensor pack_vector(std::string_view name, const DenseWeight& weight, uint32_t n) {
  if (weight.bytes.size() != base::mul(n, kernels::bits_of(weight.kind) / 8))
    fail(GPTQ_E_FORMAT, "tensor '", name, "': ", weight.bytes.size(), " bytes do not fit ", n, " values");
  const Dtype dtype = weight.kind == Kind::f16 ? Dtype::f16 : weight.kind == Kind::bf16 ? Dtype::bf16 : Dtype::f32;
  const std::vector<float> values = to_floats(dtype, weight.bytes);
  PackedTensor out;
  out.k_padded = 1;
  out.codes.resize(values.size() * 4);
  std::memcpy(out.codes.data(), values.data(), out.codes.size());
  return out;
}

}  // namespace gptq::convert
