// SPDX-License-Identifier: Apache-2.0
#include "eval_plot.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "engine_options.h"
#include "output_file.h"

namespace gptq::eval {
namespace {

constexpr double width = 760, height = 460, left = 80, right = 730, top = 50, bottom = 400;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

// A round number of about a sixth of the range.
double step_of(double range) {
  const double rough = range / 6, unit = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * unit >= rough) return factor * unit;
  return 10 * unit;
}

[[gnu::format(printf, 2, 3)]] void append(std::string& to, const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const size_t size = static_cast<size_t>(std::max(0, std::vsnprintf(nullptr, 0, format, arguments))), before = to.size();
  to.resize(before + size + 1);
  std::vsnprintf(to.data() + before, size + 1, format, again);
  to.resize(before + size);
  va_end(again);
  va_end(arguments);
}

class Picture {
 public:
  Picture(std::string& svg, const std::vector<Point>& points) : svg_(svg) {
    const auto smaller = [](const Point& a, const Point& b) { return a.megabytes < b.megabytes; };
    const auto closer = [](const Point& a, const Point& b) { return a.divergence < b.divergence; };
    const auto [least, most] = std::minmax_element(points.begin(), points.end(), smaller);
    const auto [best, worst] = std::minmax_element(points.begin(), points.end(), closer);
    const double room = std::max(0.08 * (most->megabytes - least->megabytes), 0.02 * most->megabytes);
    low_x_ = std::max(0.0, least->megabytes - room), high_x_ = most->megabytes + 2 * room;
    low_y_ = std::log10(best->divergence) - 0.15, high_y_ = std::log10(worst->divergence) + 0.15;
  }

  double x(double megabytes) const { return left + (megabytes - low_x_) / (high_x_ - low_x_) * (right - left); }
  double y(double divergence) const { return bottom - (std::log10(divergence) - low_y_) / (high_y_ - low_y_) * (bottom - top); }

  void text(double at_x, double at_y, const char* anchor, const std::string& words, const char* more = "") const {
    append(svg_, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n", at_x, at_y, anchor, more, escaped(words).c_str());
  }
  void line(double x1, double y1, double x2, double y2, const char* color) const {
    append(svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, color);
  }

  void axes() const {
    const double step = step_of(high_x_ - low_x_);
    for (double at = std::ceil(low_x_ / step) * step; at <= high_x_; at += step) {
      line(x(at), top, x(at), bottom, "#e4e4e4");
      text(x(at), bottom + 20, "middle", number(at));
    }
    for (int power = static_cast<int>(std::floor(low_y_)); power <= high_y_; ++power)
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double at = factor * std::pow(10, power);
        if (std::log10(at) < low_y_ || std::log10(at) > high_y_) continue;
        line(left, y(at), right, y(at), "#e4e4e4");
        text(left - 8, y(at) + 4, "end", number(at));
      }
    line(left, bottom, right, bottom, "#444");
    line(left, top, left, bottom, "#444");
  }

 private:
  static std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
  }

  std::string& svg_;
  double low_x_, high_x_, low_y_, high_y_;
};

}  // namespace

void write_plot(const std::string& path, const std::string& reference, std::vector<Point> points) {
  std::erase_if(points, [](const Point& p) { return !(p.divergence > 0); });
  if (points.empty()) throw Error(GPTQ_E_INVALID_ARGUMENT, "--plot: no file differs from '" + reference + "'");
  std::stable_sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.megabytes < b.megabytes; });
  std::string svg;
  const Picture picture(svg, points);
  append(svg,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n"
         "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, height);
  picture.text(left, 28, "start", "Divergence from " + reference + " by size of the file", "font-size=\"16\"");
  picture.axes();
  picture.text((left + right) / 2, bottom + 44, "middle", "MB");
  picture.text(22, (top + bottom) / 2, "middle", "KL, mean, nats (lower is closer)", "transform=\"rotate(-90 22 225)\"");
  std::string best;
  double least = INFINITY;
  char place[48];
  for (const Point& p : points)
    if (p.divergence < least) {
      least = p.divergence;
      std::snprintf(place, sizeof place, "%.1f,%.1f ", picture.x(p.megabytes), picture.y(p.divergence));
      best += place;
    }
  append(svg, "<polyline points=\"%s\" fill=\"none\" stroke=\"#2a6fdb\" stroke-width=\"1.5\"/>\n", best.c_str());
  for (const Point& p : points) {
    append(svg, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" fill=\"#2a6fdb\"/>\n", picture.x(p.megabytes), picture.y(p.divergence));
    picture.text(picture.x(p.megabytes) + 8, picture.y(p.divergence) - 6, "start", p.name);
  }
  svg += "</svg>\n";
  tool::OutputFile file(path);
  file.write(svg.data(), svg.size());
  file.commit();
}

}  // namespace gptq::eval
