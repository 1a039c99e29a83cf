// SPDX-License-Identifier: Apache-2.0
// The gated delta rule: the specification.
#include <math.h>

#include "kernels/kernels.h"

namespace gptq::kernels {
namespace {

double logistic(double x) { return 1 / (1 + exp(-x)); }
double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

double dot(const float* x, const float* y, uint32_t n) {
  double sum = 0;
  for (uint32_t j = 0; j < n; ++j) sum += static_cast<double>(x[j]) * y[j];
  return sum;
}

// One row of value head h, in its state.
void step(const DeltaArgs& a, uint64_t h, uint64_t row, float* state) {
  const uint64_t key_head = h / (a.n_value_heads / a.n_key_heads);
  const float *q = a.q + row * a.stride + key_head * a.key_dim, *k = a.k + row * a.stride + key_head * a.key_dim;
  const float *v = a.v + row * a.stride + h * a.value_dim, *z = a.z + row * a.z_stride + h * a.value_dim;
  float* y = a.y + (row * a.n_value_heads + h) * a.value_dim;
  const double decay = exp(-a.rate[h] * softplus(double{a.a[row * a.gate_stride + h]} + a.dt_bias[h]));
  const double beta = logistic(a.b[row * a.gate_stride + h]);
  const double q_unit = 1 / sqrt(dot(q, q, a.key_dim) + 1e-6) / sqrt(a.key_dim), k_unit = 1 / sqrt(dot(k, k, a.key_dim) + 1e-6);
  double squares = 0;
  for (uint32_t d = 0; d < a.value_dim; ++d) {
    double seen = 0, sum = 0;
    for (uint64_t j = 0; j < a.key_dim; ++j) seen += decay * state[j * a.value_dim + d] * k[j] * k_unit;
    const double change = beta * (v[d] - seen);
    for (uint64_t j = 0; j < a.key_dim; ++j) {
      float& s = state[j * a.value_dim + d];
      s = static_cast<float>(decay * s + k[j] * k_unit * change);
      sum += s * q[j] * q_unit;
    }
    y[d] = static_cast<float>(sum);
    squares += sum * sum;
  }
  const double factor = 1 / sqrt(squares / a.value_dim + a.eps);
  for (uint32_t d = 0; d < a.value_dim; ++d) y[d] = static_cast<float>(y[d] * factor * a.weight[d] * z[d] * logistic(z[d]));
}

}  // namespace

void delta_ref(const DeltaArgs& a) {
  const uint64_t size = uint64_t{a.key_dim} * a.value_dim;
  for (uint64_t h = a.first_head; h < a.last_head; ++h) {
    float* state = a.next_state + h * size;
    for (uint64_t j = 0; j < size; ++j) state[j] = a.state ? a.state[h * size + j] : 0;
    for (uint64_t row = 0; row < a.m; ++row) step(a, h, row, state);
  }
}

}  // namespace gptq::kernels
