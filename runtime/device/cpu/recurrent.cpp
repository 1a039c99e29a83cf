// SPDX-License-Identifier: Apache-2.0
// Layers with a state: a sequence's rows in order, channels and heads side by side.
#include "device/cpu/cpu_device.h"

namespace gptq::device {
namespace {

// What the sequence's earlier tokens left, or NULL, and where its rows leave theirs.
const float* state_of(const Sequence& s, uint64_t offset) { return s.state ? reinterpret_cast<const float*>(s.state + offset) : nullptr; }
float* next_state_of(const Sequence& s, uint64_t offset) { return reinterpret_cast<float*>(s.next_state + offset); }

}  // namespace

void CpuDevice::convolve(const Convolution& c) {
  for (const Sequence& s : batch_.sequences) {
    const uint64_t begin = uint64_t{s.first_row} * c.stride;
    split(c.n, 64, [&](uint64_t first, uint64_t last) {
      kernels_.convolve({.x = c.x + begin,
                         .before = c.before ? c.before + begin : nullptr,
                         .after = c.after ? c.after + begin : nullptr,
                         .weight = c.weight,
                         .state = state_of(s, c.state),
                         .next_state = next_state_of(s, c.state),
                         .out = c.y + uint64_t{s.first_row} * c.n,
                         .m = s.n_rows,
                         .n = c.n,
                         .kernel = c.kernel,
                         .stride = c.stride,
                         .out_stride = c.n,
                         .first_channel = static_cast<uint32_t>(first),
                         .last_channel = static_cast<uint32_t>(last),
                         .silu = c.silu});
    });
  }
}

void CpuDevice::delta_rule(const DeltaRule& d) {
  const uint32_t keys = d.n_k * d.d_k, values = d.n_v * d.d_v, stride = 2 * keys + values;
  for (const Sequence& s : batch_.sequences) {
    const float* qkv = d.qkv + uint64_t{s.first_row} * stride;
    pool_.run(d.n_v, [&](uint32_t head) {
      kernels_.delta({.q = qkv,
                      .k = qkv + keys,
                      .v = qkv + 2 * keys,
                      .a = d.a + uint64_t{s.first_row} * d.n_v,
                      .b = d.b + uint64_t{s.first_row} * d.n_v,
                      .rate = d.decay,
                      .dt_bias = d.dt_bias,
                      .z = d.z + uint64_t{s.first_row} * values,
                      .weight = d.norm,
                      .state = state_of(s, d.state),
                      .next_state = next_state_of(s, d.state),
                      .y = d.y + uint64_t{s.first_row} * values,
                      .m = s.n_rows,
                      .stride = stride,
                      .gate_stride = d.n_v,
                      .z_stride = values,
                      .n_key_heads = d.n_k,
                      .n_value_heads = d.n_v,
                      .key_dim = d.d_k,
                      .value_dim = d.d_v,
                      .first_head = head,
                      .last_head = head + 1,
                      .eps = d.eps});
    });
  }
}

}  // namespace gptq::device
