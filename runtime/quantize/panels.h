// SPDX-License-Identifier: Apache-2.0
// Matrices as panels, the right operand of the add_product kernel.
#pragma once
#include "base/memory.h"
#include "base/threads.h"
#include "device/cpu/cpu_device.h"

namespace gptq::quantize {

// A device for many rows at a time, which multiplies the matrices it has been given to hold as float32 panels: quicker than matmul_float,
// whose order of summation is the same for one row. All else is as CpuDevice does it.
class PanelDevice final : public device::CpuDevice {
 public:
  PanelDevice(const kernels::Kernels& kernels, base::Pool& pool, const device::CpuScratch& scratch, std::pmr::memory_resource* memory);

  // Gives what stands for w from now on in products; its values cannot be read elsewhere.
  kernels::Matrix hold(const kernels::Matrix& w);
  void drop_all() { held_.clear(); }

  void matmul(std::span<const device::Product> products, bool accumulate) override;

 private:
  bool holds(const kernels::Matrix& w) const;
  void multiply(const device::Product& product, const float* x, uint32_t rows, bool accumulate);

  const kernels::Kernels& kernels_;
  base::Pool& pool_;
  std::pmr::memory_resource* memory_;
  std::vector<base::Buffer> held_;
};

}  // namespace gptq::quantize
