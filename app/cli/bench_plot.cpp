#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "app/cli/bench_record.h"
#include "app/html.h"
#include "app/svg_plot.h"

namespace vkflux::cli {
namespace {

constexpr double kWidth = 760, kHeight = 440, kLeft = 64, kRight = 190, kTop = 34, kBottom = 48;
constexpr std::array<const char*, 8> kColors = {"#1f6fb4", "#d9730d", "#2c8c3c", "#b3261e",
                                                "#7a4fb5", "#8a5a3b", "#c2418f", "#5f6b76"};

/// A logarithmic axis over whole powers of ten, from position a to position b.
struct Axis {
  double low, high, a, b;
  Axis(double least, double most, double from, double to)
      : low(std::floor(std::log10(least))), high(std::ceil(std::log10(most))), a(from), b(to) {
    if (high <= low) high = low + 1;
  }
  double at(double v) const { return a + (std::log10(v) - low) / (high - low) * (b - a); }
};

/// Rows of one kind share a colour: the first word of the name.
std::string family(const bench::Row& r) {
  return r.name.substr(0, r.name.find(' '));
}

std::string grid(const Axis& x, const Axis& y) {
  std::string out;
  for (double e = x.low; e <= x.high; ++e) {
    const double v = std::pow(10, e);
    out += fmt::format(
        "<line x1='{0:.1f}' x2='{0:.1f}' y1='{1:.1f}' y2='{2:.1f}' class='grid'/><text x='{0:.1f}' "
        "y='{3:.1f}' class='tick' text-anchor='middle'>{4:g}</text>",
        x.at(v), kTop, kHeight - kBottom, kHeight - kBottom + 16, v);
  }
  for (double e = y.low; e <= y.high; ++e) {
    const double v = std::pow(10, e);
    out += fmt::format(
        "<line x1='{0:.1f}' x2='{1:.1f}' y1='{2:.1f}' y2='{2:.1f}' class='grid'/><text x='{3:.1f}' "
        "y='{4:.1f}' class='tick' text-anchor='end'>{5:g}</text>",
        kLeft, kWidth - kRight, y.at(v), kLeft - 6, y.at(v) + 4, v);
  }
  return out;
}

std::string roof(const BenchRecord& record, const Axis& x, const Axis& y) {
  const double knee = record.peaks.gflops / record.peaks.gbs;
  const double least = std::pow(10, x.low), most = std::pow(10, x.high), floor = std::pow(10, y.low);
  const double start = std::max(least, floor / record.peaks.gbs);
  std::string points = fmt::format("{:.1f},{:.1f} ", x.at(start), y.at(start * record.peaks.gbs));
  if (knee > start && knee < most)
    points += fmt::format("{:.1f},{:.1f} ", x.at(knee), y.at(record.peaks.gflops));
  points +=
      fmt::format("{:.1f},{:.1f}", x.at(most), y.at(std::min(record.peaks.gflops, most * record.peaks.gbs)));
  return fmt::format("<polyline points='{}' fill='none' stroke='#222' stroke-width='1.6'/>", points);
}

}  // namespace

std::string roofline_svg(const BenchRecord& record) {
  std::vector<const bench::Row*> shown;
  for (const bench::Row& r : record.rows) {
    if (r.flops > 0 && r.bytes > 0 && r.gflops > 0) shown.push_back(&r);
  }
  const double knee = record.peaks.gflops / record.peaks.gbs;
  double left = knee / 10, right = knee * 10, least = record.peaks.gflops / 100, most = record.peaks.gflops;
  for (const bench::Row* r : shown) {
    left = std::min(left, r->flops / r->bytes), right = std::max(right, r->flops / r->bytes);
    least = std::min(least, r->gflops), most = std::max(most, r->gflops);
  }
  const Axis x(left, right, kLeft, kWidth - kRight), y(least, most, kHeight - kBottom, kTop);
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' "
      "height='{1:.0f}' font-family='sans-serif'><style>.grid{{stroke:#ddd}}.tick{{font-size:11px;fill:#555}}"
      ".label{{font-size:12px;fill:#333}}.title{{font-size:14px;fill:#111}}</style>"
      "<rect width='100%' height='100%' fill='#fff'/>",
      kWidth, kHeight);
  out += grid(x, y) + roof(record, x, y);
  const double middle = (kLeft + kWidth - kRight) / 2, half = (kTop + kHeight - kBottom) / 2;
  out += fmt::format(
      "<text x='{0:.1f}' y='20' class='title' text-anchor='middle'>{1}</text><text x='{0:.1f}' y='{2:.1f}' "
      "class='label' text-anchor='middle'>operations per byte that must move</text><text x='16' y='{3:.1f}' "
      "class='label' text-anchor='middle' transform='rotate(-90 16 {3:.1f})'>GFLOP/s</text>",
      middle,
      escape_html(fmt::format("{}: {:.0f} GFLOP/s, {:.0f} GB/s", record.device, record.peaks.gflops,
                              record.peaks.gbs)),
      kHeight - 10, half);
  std::vector<std::string> families;
  for (const bench::Row* r : shown) {
    const std::string f = family(*r);
    auto it = std::find(families.begin(), families.end(), f);
    if (it == families.end()) it = families.insert(families.end(), f);
    const char* color = kColors[static_cast<size_t>(it - families.begin()) % kColors.size()];
    out += fmt::format(
        "<circle cx='{:.1f}' cy='{:.1f}' r='3.5' fill='{}' fill-opacity='0.75'><title>{}</title></circle>",
        x.at(r->flops / r->bytes), y.at(r->gflops), color,
        escape_html(fmt::format("{} {} {}: {:.1f} GFLOP/s, {:.0f}% of the limit", r->name, r->shape, r->dtype,
                                r->gflops, 100 * r->share)));
  }
  for (size_t i = 0; i < families.size(); ++i) {
    const double row = kTop + 8 + 17 * static_cast<double>(i);
    out += fmt::format(
        "<circle cx='{:.1f}' cy='{:.1f}' r='4' fill='{}'/><text x='{:.1f}' y='{:.1f}' class='tick'>{}</text>",
        kWidth - kRight + 16, row, kColors[i % kColors.size()], kWidth - kRight + 26, row + 4,
        escape_html(families[i]));
  }
  return out + "</svg>\n";
}

}  // namespace vkflux::cli
