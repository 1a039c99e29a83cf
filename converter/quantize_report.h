// SPDX-License-Identifier: Apache-2.0
// What gptq-convert quantize says about the matrices: a line each in a CSV file, a table by kind on the terminal.
#pragma once
#include <string>
#include <vector>

#include "gptq/gptq.h"

namespace gptq::convert {

class QuantizeReport {
 public:
  // module: what the matrix is called in checkpoints.
  void add(const gptq_quantize_report& report, std::string module) {
    modules_.push_back(std::move(module));
    names_.emplace_back(report.name, report.name_size);
    reports_.push_back(report);
  }
  void write_csv(const std::string& path) const;  // appears whole or not at all
  void print() const;

 private:
  std::vector<std::string> modules_;
  std::vector<std::string> names_;  // the reports' own pointers are gone
  std::vector<gptq_quantize_report> reports_;
};

}  // namespace gptq::convert
