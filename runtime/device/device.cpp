// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include "base/failure.h"

namespace gptq::device {
namespace {

[[noreturn]] void refuse() { base::fail(GPTQ_E_INTERNAL, "this device was given a model that it cannot compute"); }

}  // namespace

void Device::norm(const float*, const Norm&, float*, uint32_t, uint32_t) { refuse(); }
void Device::scale(float*, uint64_t, float) { refuse(); }
void Device::add(float*, const float*, uint64_t, float) { refuse(); }
void Device::gate(float*, const float*, uint64_t) { refuse(); }
void Device::copy_columns(const Copy&) { refuse(); }
void Device::gather_rows(const float*, const uint32_t*, uint32_t, uint32_t, float*) { refuse(); }
void Device::mix_parts(const Mixture&) { refuse(); }
void Device::softcap(float*, uint64_t, float) { refuse(); }
void Device::add_positions(const kernels::Matrix&, uint32_t, float*) { refuse(); }
void Device::latent_heads(const LatentHeads&) { refuse(); }
void Device::latent_attention(const KvCache&, const LatentAttention&) { refuse(); }
void Device::convolve(const Convolution&) { refuse(); }
void Device::delta_rule(const DeltaRule&) { refuse(); }

}  // namespace gptq::device
