// SPDX-License-Identifier: Apache-2.0
#include "quantize/tap.h"

#include <algorithm>

namespace gptq::quantize {

const Tap::Watch* Tap::find(const kernels::Matrix* w) const {
  const auto at = watches_.find(w);
  return at == watches_.end() ? nullptr : &at->second;
}

void Tap::begin_chunk(const float* weights, uint32_t n_tokens) {
  weights_ = weights;
  n_tokens_ = n_tokens;
  tokens_ = nullptr;
}

void Tap::see(const device::Product& product, const float* x, uint32_t rows) {
  const auto at = watches_.find(product.w);
  if (at == watches_.end()) return;
  Watch& watch = at->second;
  watch.rows += rows;
  if (!watch.gram || rows == 0) return;
  if (!weights_) return watch.gram->collect(x, nullptr, rows);
  // A single token is not gathered: it stands for every row.
  row_weights_.resize(rows);
  for (uint32_t i = 0; i < rows; ++i) {
    const uint32_t row = product.first_row + i;
    row_weights_[i] = weights_[tokens_ ? tokens_[row] : std::min(row, n_tokens_ - 1)];
  }
  watch.gram->collect(x, row_weights_.data(), rows);
}

}  // namespace gptq::quantize
