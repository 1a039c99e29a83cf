// SPDX-License-Identifier: Apache-2.0
// The triangular factor the solver works with.
#pragma once
#include "base/threads.h"
#include "kernels/kernels.h"

namespace gptq::quantize {

// h [k][k] symmetric becomes R, upper triangular with zeros below, h = R R^T. False where h is not positive definite; h is lost then.
bool factor_upper(double* h, uint32_t k, double* scratch, const kernels::Kernels& kernels, base::Pool& pool);
// y [rows][k] becomes y h^-1. mirror_upper(r) comes once before: it copies what is above R's diagonal below it.
void mirror_upper(double* r, uint32_t k, base::Pool& pool);
void solve_rows(const double* r, uint32_t k, double* y, uint32_t rows, const kernels::Kernels& kernels);
// Doubles of scratch.
constexpr uint64_t factor_scratch(uint32_t k) { return uint64_t{k} * 64; }

}  // namespace gptq::quantize
