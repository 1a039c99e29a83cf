// SPDX-License-Identifier: Apache-2.0
// Quality against size as a picture.
#pragma once
#include <string>
#include <vector>

namespace gptq::eval {

struct Point {
  std::string name;
  double megabytes, divergence;  // divergence: above 0
};

// Writes an SVG: a point for every file, divergence on a logarithmic scale; a line joins those than which none is both smaller and closer.
void write_plot(const std::string& path, const std::string& reference, std::vector<Point> points);

}  // namespace gptq::eval
