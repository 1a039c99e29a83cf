// SPDX-License-Identifier: Apache-2.0
// What is done number by number.
#include <math.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/simt.h"
#include "kernels/cuda/stream.h"

namespace gptq::cuda {
namespace {

using kernels::Elementwise;

constexpr uint32_t threads = 256;

GPTQ_DEVICE float changed(const ElementwiseArgs& a, uint64_t i) {
  const float x = a.x[i], f = a.factor;
  switch (a.kind) {
    case Elementwise::scale: return x * f;
    case Elementwise::clamp: return x > f ? f : x < -f ? -f : x;  // NaN stays
    case Elementwise::softcap: return f * tanhf(x / f);
    case Elementwise::gate: return x / (1 + exp_of(-a.y[i]));
    case Elementwise::add_scaled: break;
  }
  return fused(f, a.y[i], x);
}

GPTQ_KERNEL(threads) void elementwise_kernel(ElementwiseArgs a) {
  let_next_begin();
  wait_for_previous();
  const uint64_t i = uint64_t{block_x()} * threads + thread_index();
  if (i < a.count) a.out[i] = changed(a, i);
}

}  // namespace

void elementwise(const ElementwiseArgs& args, Stream& stream) {
  stream.launch(elementwise_kernel, {static_cast<uint32_t>((args.count + threads - 1) / threads), 1, 1, threads, 0}, args);
}

}  // namespace gptq::cuda
