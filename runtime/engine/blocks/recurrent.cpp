// SPDX-License-Identifier: Apache-2.0
// Layers that remember by a state instead of keys and values: the gated delta rule (Qwen3-Next) and the short convolution (LFM2).
#include "engine/forward.h"

namespace gptq::engine {

using model::Role;

void Forward::apply_delta(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  const model::Delta& d = spec_.delta;
  const uint64_t n = d.channels(), values = uint64_t{d.n_v} * d.d_v;
  float* mixed = ws_.q;                         // q, k and v behind the convolution, [rows][n]
  float* apart = ws_.inner;                     // what the products give: q, k, v one behind another; joined below
  float* z = ws_.inner + rows * n;
  float* a = z + rows * values;
  float* b = a + uint64_t{rows} * d.n_v;
  const uint64_t keys = uint64_t{d.n_k} * d.d_k;
  const auto product = [&](Role role, float* y) { return product_of(layer[role], y); };
  const device::Product products[] = {product(Role::q, apart), product(Role::k, apart + rows * keys), product(Role::v, apart + 2 * rows * keys),
                                      product(Role::z, z), product(Role::a, a), product(Role::b, b)};
  device_.prepare(input, rows);
  device_.matmul(products, false);
  const auto join = [&](const float* from, uint64_t width, uint64_t at) {
    device_.copy_columns({.from = from, .from_stride = width, .to = mixed + at, .to_stride = n, .rows = rows, .n = static_cast<uint32_t>(width)});
  };
  join(apart, keys, 0);
  join(apart + rows * keys, keys, keys);
  join(apart + 2 * rows * keys, values, 2 * keys);
  const uint64_t state = layout_.state_of(index), conv_floats = uint64_t{d.kernel - 1} * n;
  device_.convolve({.x = mixed,
                    .before = nullptr,
                    .after = nullptr,
                    .weight = layer.vector(Role::conv),
                    .y = apart,
                    .n = static_cast<uint32_t>(n),
                    .kernel = d.kernel,
                    .stride = static_cast<uint32_t>(n),
                    .silu = true,
                    .state = state});
  device_.delta_rule({.qkv = apart,
                      .a = a,
                      .b = b,
                      .z = z,
                      .decay = layer.vector(Role::decay),
                      .dt_bias = layer.vector(Role::dt_bias),
                      .norm = layer.vector(Role::delta_norm),
                      .y = ws_.attended,
                      .n_k = d.n_k,
                      .n_v = d.n_v,
                      .d_k = d.d_k,
                      .d_v = d.d_v,
                      .eps = spec_.norm_eps,
                      .state = state + conv_floats * sizeof(float)});
}

// y = C * conv(B * x), where [B; C; x] is what conv_in gives.
void Forward::convolve(uint32_t rows, const model::Layer& layer, uint32_t index, const device::Input& input) {
  const uint32_t n = spec_.n_embd;
  float* bcx = ws_.inner;
  const device::Product product = product_of(layer[Role::conv_in], bcx);
  device_.prepare(input, rows);
  device_.matmul({&product, 1}, false);
  device_.convolve({.x = bcx + 2 * n,
                    .before = bcx,
                    .after = bcx + n,
                    .weight = layer.vector(Role::conv),
                    .y = ws_.attended,
                    .n = n,
                    .kernel = spec_.conv_kernel,
                    .stride = 3 * n,
                    .silu = false,
                    .state = layout_.state_of(index)});
}

}  // namespace gptq::engine
