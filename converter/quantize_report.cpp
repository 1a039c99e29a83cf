// SPDX-License-Identifier: Apache-2.0
#include "converter/quantize_report.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <span>

#include "base/io.h"

namespace gptq::convert {
namespace {

template <class... Values>
std::string line(const char* format, Values... values) {
  char text[512];
  const int n = std::snprintf(text, sizeof text, format, values...);
  return {text, static_cast<size_t>(std::clamp(n, 0, static_cast<int>(sizeof text) - 1))};
}

// "q" of "layers.0.q", "expert up" of "layers.0.experts.5.up"
std::string kind_of(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  return name.find(".experts.") != name.npos ? "expert " + last : name.find(".shared.") != name.npos ? "shared " + last : last;
}

struct Kind {
  uint32_t n = 0;
  double sum = 0, worst = 0, seconds = 0;
  std::string worst_name;
};

}  // namespace

void QuantizeReport::write_csv(const std::string& path) const {
  std::string text = "name,outputs,inputs,bits,group_size,tokens,relative_squared_error,damp,dead_inputs,rounded_to_nearest,all_tokens,seconds,module\n";
  for (size_t i = 0; i < reports_.size(); ++i) {
    const gptq_quantize_report& r = reports_[i];
    text += line("%s,%u,%u,%u,%d,%llu,%.6g,%.6g,%u,%u,%u,%.3f,%s\n", names_[i].c_str(), r.n, r.k, r.bits, r.group_size,
                 static_cast<unsigned long long>(r.n_tokens), r.error, r.damp, r.dead_inputs, r.rounded, r.all_tokens, r.seconds, modules_[i].c_str());
  }
  base::AtomicFile file(path, base::AtomicFile::IfExists::replace);
  file.append(std::as_bytes(std::span(text)));
  file.commit();
}

void QuantizeReport::print() const {
  std::map<std::string, Kind> kinds;
  for (size_t i = 0; i < reports_.size(); ++i) {
    Kind& kind = kinds[kind_of(names_[i])];
    ++kind.n;
    kind.sum += reports_[i].error;
    kind.seconds += reports_[i].seconds;
    if (reports_[i].error < kind.worst && !kind.worst_name.empty()) continue;
    kind.worst = reports_[i].error;
    kind.worst_name = names_[i];
  }
  std::printf("%-12s %8s %12s %12s %8s  %s\n", "matrix", "count", "mean error", "worst error", "seconds", "worst");
  for (const auto& [name, kind] : kinds)
    std::printf("%-12s %8u %12.3e %12.3e %8.1f  %s\n", name.c_str(), kind.n, kind.sum / kind.n, kind.worst, kind.seconds, kind.worst_name.c_str());
  for (size_t i = 0; i < reports_.size(); ++i)
    if (reports_[i].all_tokens) std::printf("note: %s was calibrated with the tokens of all experts: too few are routed to it\n", names_[i].c_str());
  for (size_t i = 0; i < reports_.size(); ++i)
    if (reports_[i].rounded) std::printf("note: %s was rounded to nearest: its calibration inputs give no usable Hessian\n", names_[i].c_str());
}

}  // namespace gptq::convert
