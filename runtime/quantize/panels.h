// SPDX-License-Identifier: Apache-2.0
// Matrices as panels, the right operand of the add_product kernel.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"
#include "quantize/tap.h"

namespace gptq::quantize {

// A device for many rows at a time, which multiplies the matrices it has been given to hold as float32 panels: quicker than matmul_float,
// whose order of summation is the same for one row. Of other quantized matrices, as experts are, it makes the panels anew each time. All
// else is as CpuDevice does it.
class PanelDevice final : public device::CpuDevice {
 public:
  PanelDevice(const kernels::Kernels& kernels, base::Pool& pool, const device::CpuScratch& scratch, std::pmr::memory_resource* memory);

  // Gives what stands for w from now on in products; its values cannot be read elsewhere.
  kernels::Matrix hold(const kernels::Matrix& w);
  void drop_all() { held_.clear(); }
  // What sees the products from now on, and may end them with Tap::Enough; NULL: nothing.
  void set_tap(Tap* tap) { tap_ = tap; }

  void matmul(std::span<const device::Product> products, bool accumulate) override;
  void gather_rows(const float* x, const uint32_t* rows, uint32_t count, uint32_t n, float* out) override;

 private:
  bool holds(const kernels::Matrix& w) const;
  void fill(const kernels::Matrix& w, float* panels) const;
  const float* panels_of(const kernels::Matrix& w);  // NULL: it is multiplied as it is
  uint32_t rows_of(const device::Product& product) const;
  void see(std::span<const device::Product> products);
  void multiply(const device::Product& product, const float* panels, bool accumulate);

  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  std::vector<base::Buffer> held_;
  base::Buffer passing_;  // of the product at hand
  Tap* tap_ = nullptr;
};

}  // namespace gptq::quantize
