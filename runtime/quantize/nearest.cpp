// SPDX-License-Identifier: Apache-2.0
#include "quantize/nearest.h"

#include <algorithm>

#include "base/checked.h"
#include "quantize/grid.h"

namespace gptq::quantize {
namespace {

constexpr uint32_t rows_compared = 32;

// A row of a matrix, rounded group after group.
class Row {
 public:
  Row(uint32_t k, std::pmr::memory_resource* memory) : floats(k, memory), values_(k, memory), even_(k, 1.0, memory) {}

  // Returns the squared error; floats are what the codes stand for then.
  double round(const ModuleOptions& options) {
    const auto k = static_cast<uint32_t>(floats.size());
    const uint32_t group = options.group_size < 0 ? k : std::min(k, static_cast<uint32_t>(options.group_size));
    const int32_t top = (1 << options.bits) - 1;
    double error = 0;
    std::copy(floats.begin(), floats.end(), values_.begin());
    for (uint32_t first = 0; first < k; first += group) {
      const uint32_t n = std::min(group, k - first);
      const Grid grid = searched_grid(values_.data() + first, even_.data(), n, options.bits, options.symmetric);
      for (uint32_t i = first; i < first + n; ++i) {
        const double value = grid.scale * (code_of(values_[i], grid, top) - grid.zero);
        error += (value - values_[i]) * (value - values_[i]);
        floats[i] = static_cast<float>(value);
      }
    }
    return error;
  }

  std::pmr::vector<float> floats;

 private:
  std::pmr::vector<double> values_, even_;
};

}  // namespace

base::Buffer round_to_nearest(const kernels::Matrix& w, const ModuleOptions& options, const kernels::Kernels& kernels, base::Pool& pool,
                              std::pmr::memory_resource* memory) {
  base::Buffer out(memory, base::to_size(base::mul(w.n, w.k, sizeof(float))));
  auto* values = reinterpret_cast<float*>(out.data());
  constexpr uint32_t at_a_time = 16;
  pool.run_throwing((w.n + at_a_time - 1) / at_a_time, [&](uint32_t task) {
    Row row(w.k, memory);
    for (uint32_t i = task * at_a_time; i < std::min(w.n, (task + 1) * at_a_time); ++i) {
      kernels.dequantize_row({&w, i, row.floats.data()});
      row.round(options);
      std::copy(row.floats.begin(), row.floats.end(), values + size_t{i} * w.k);
    }
  });
  return out;
}

std::vector<double> nearest_errors(const kernels::Matrix& w, std::span<const ModuleOptions> settings, const kernels::Kernels& kernels,
                                   base::Pool& pool, std::pmr::memory_resource* memory) {
  std::vector<double> errors(settings.size());
  const uint32_t rows = std::min(w.n, rows_compared);
  pool.run_throwing(static_cast<uint32_t>(settings.size()), [&](uint32_t task) {
    Row row(w.k, memory);
    for (uint32_t i = 0; i < rows; ++i) {
      kernels.dequantize_row({&w, static_cast<uint32_t>(uint64_t{i} * w.n / rows), row.floats.data()});
      errors[task] += row.round(settings[task]);
    }
    errors[task] *= static_cast<double>(w.n) / rows;
  });
  return errors;
}

}  // namespace gptq::quantize
