// SPDX-License-Identifier: Apache-2.0
// The MLP's activations but for silu(x) * up, which products take along. kernels/activate/ref.cpp is the specification.
#include <math.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

using kernels::Activation;

constexpr uint32_t threads = 256;

GPTQ_DEVICE float within(float x, float most) { return x > most ? most : x < -most ? -most : x; }  // NaN stays
GPTQ_DEVICE float softplus(float x) { return x > 20 ? x : log1pf(exp_of(x)); }

GPTQ_DEVICE float xielu(const float* p, float x) {
  const float eps = p[3], beta = p[2];
  const float bent = x > 0 ? softplus(p[0]) * x * x : (beta + softplus(p[1])) * (expm1f(x > eps ? eps : x) - x);
  return bent + beta * x;
}

GPTQ_DEVICE float activated(const ActivateArgs& a, float x) {
  switch (a.act) {
    case Activation::silu: return silu(x);
    case Activation::gelu: return x / 2 * erfcf(-x * 0.707106781f);
    case Activation::gelu_tanh: return x / (1 + exp_of(-1.59576912f * (x + 0.044715f * x * x * x)));
    case Activation::relu: return x < 0 ? 0 : x;
    case Activation::relu2: return x < 0 ? 0 : x * x;
    case Activation::swiglu_clamped: x = x > 7 ? 7 : x; return x / (1 + exp_of(-1.702f * x));
    case Activation::xielu: break;
  }
  return xielu(a.xielu, x);
}

GPTQ_KERNEL(threads) void activate_kernel(ActivateArgs a) {
  let_next_begin();
  wait_for_previous();
  const uint64_t i = uint64_t{block_x()} * threads + thread_index();
  if (i >= a.count) return;
  const float up = a.up[i];
  if (!a.gate) a.out[i] = activated(a, up);
  else a.out[i] = activated(a, a.gate[i]) * (a.act == Activation::swiglu_clamped ? within(up, 7) + 1 : up);
}

}  // namespace

void activate(const ActivateArgs& args, Stream& stream) {
  stream.launch(activate_kernel, {static_cast<uint32_t>((args.count + threads - 1) / threads), 1, 1, threads, 0}, args);
}

}  // namespace gptq::cuda
