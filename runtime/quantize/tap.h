// SPDX-License-Identifier: Apache-2.0
// What a pass through a part of a layer is made for: what some of its matrices read, taken from the products themselves.
#pragma once
#include <memory_resource>
#include <unordered_map>
#include <vector>

#include "device/device.h"
#include "quantize/gram.h"

namespace gptq::quantize {

class Tap {
 public:
  struct Watch {
    Gram* gram = nullptr;  // takes the rows; NULL: they are only counted
    uint64_t rows = 0;
    bool last = false;     // the pass ends at the call with this product
    bool skipped = false;  // nobody reads what the product gives
  };
  struct Enough {};        // thrown where the pass ends

  explicit Tap(std::pmr::memory_resource* memory) : watches_(memory) {}
  Watch& operator[](const kernels::Matrix& w) { return watches_[&w]; }
  const Watch* find(const kernels::Matrix* w) const;

  // weights [n_tokens] or NULL. The rows of products are the tokens, until they are gathered.
  void begin_chunk(const float* weights, uint32_t n_tokens);
  void gather(const uint32_t* tokens) { tokens_ = tokens; }
  // x: of the product's first row.
  void see(const device::Product& product, const float* x, uint32_t rows);

 private:
  std::pmr::unordered_map<const kernels::Matrix*, Watch> watches_;
  const float* weights_ = nullptr;
  const uint32_t* tokens_ = nullptr;
  uint32_t n_tokens_ = 0;
  std::vector<float> row_weights_;
};

}  // namespace gptq::quantize
