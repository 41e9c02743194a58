#include "app/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace vkflux {
namespace {

constexpr double kWidth = 640, kHeight = 360, kLeft = 64, kRight = 140, kTop = 32, kBottom = 44;
constexpr std::array<const char*, 8> kColors = {"#1f6fb4", "#d9730d", "#2c8c3c", "#b3261e",
                                                "#7a4fb5", "#8a5a3b", "#c2418f", "#5f6b76"};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double x) {
    if (!std::isfinite(x)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  void settle() {
    if (!(low <= high)) *this = {0, 1};
    if (low < high) return;
    const double room = low == 0 ? 1 : std::fabs(low) * 0.1;
    low -= room;
    high += room;
  }
};

/// A distance between ticks that reads well: 1, 2 or 5 times a power of ten, at most `most` of them.
double tick_step(const Range& r, int most) {
  const double raw = (r.high - r.low) / most, power = std::pow(10, std::floor(std::log10(raw)));
  for (double f : {1.0, 2.0, 5.0}) {
    if (f * power >= raw) return f * power;
  }
  return 10 * power;
}

class Frame {
 public:
  Frame(const Plot& plot) : plot_(plot) {
    for (const PlotSeries& s : plot.series) {
      for (const auto& [x, y] : s.points) {
        if (!std::isfinite(x) || !std::isfinite(y)) continue;
        x_.add(x);
        y_.add(y);
      }
    }
    if (plot.rule) y_.add(*plot.rule);
    if (plot.from_zero) y_.add(0);
    x_.settle();
    y_.settle();
  }
  double x(double v) const { return kLeft + (v - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight); }
  double y(double v) const {
    return kHeight - kBottom - (v - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }
  std::string axes() const {
    std::string out;
    constexpr int kTicks = 6;
    const double dx = tick_step(x_, kTicks), dy = tick_step(y_, kTicks);
    for (double v = std::ceil(y_.low / dy) * dy; v <= y_.high + dy * 1e-9; v += dy) {
      out += fmt::format(
          "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' class='grid'/><text x='{:.1f}' y='{:.1f}' "
          "class='tick' text-anchor='end'>{:.4g}</text>",
          kLeft, kWidth - kRight, y(v), y(v), kLeft - 6, y(v) + 4, std::fabs(v) < dy * 1e-9 ? 0.0 : v);
    }
    for (double v = std::ceil(x_.low / dx) * dx; v <= x_.high + dx * 1e-9; v += dx) {
      out += fmt::format("<text x='{:.1f}' y='{:.1f}' class='tick' text-anchor='middle'>{:.6g}</text>", x(v),
                         kHeight - kBottom + 16, std::fabs(v) < dx * 1e-9 ? 0.0 : v);
    }
    const double middle = (kLeft + kWidth - kRight) / 2, half = (kTop + kHeight - kBottom) / 2;
    out += fmt::format("<text x='{:.1f}' y='18' class='title' text-anchor='middle'>{}</text>", middle,
                       escape_html(plot_.title));
    out += fmt::format("<text x='{:.1f}' y='{:.1f}' class='label' text-anchor='middle'>{}</text>", middle,
                       kHeight - 8, escape_html(plot_.x_label));
    out += fmt::format(
        "<text x='14' y='{0:.1f}' class='label' text-anchor='middle' transform='rotate(-90 14 "
        "{0:.1f})'>{1}</text>",
        half, escape_html(plot_.y_label));
    return out;
  }
  std::string line(const PlotSeries& s, const char* color) const {
    std::string points;
    double last = 0;
    for (const auto& [px, py] : s.points) {
      if (!std::isfinite(px) || !std::isfinite(py)) continue;
      if (plot_.stairs && !points.empty()) points += fmt::format("{:.1f},{:.1f} ", x(px), y(last));
      points += fmt::format("{:.1f},{:.1f} ", x(px), y(py));
      last = py;
    }
    return fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.5'/>", points, color);
  }

 private:
  const Plot& plot_;
  Range x_, y_;
};

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string svg_plot(const Plot& plot) {
  const Frame frame(plot);
  std::string out = fmt::format(
      "<svg viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' height='{1:.0f}' font-family='sans-serif'>"
      "<style>.grid{{stroke:#ddd}}.tick{{font-size:11px;fill:#555}}.label{{font-size:12px;fill:#333}}"
      ".title{{font-size:14px;fill:#111}}</style>",
      kWidth, kHeight);
  out += frame.axes();
  if (plot.rule) {
    out += fmt::format(
        "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' stroke='#888' stroke-dasharray='5 4'/>", kLeft,
        kWidth - kRight, frame.y(*plot.rule), frame.y(*plot.rule));
  }
  constexpr double kRow = 17;
  double row = kTop + 6;
  const auto legend = [&](const char* color, const char* dash, const std::string& name) {
    out += fmt::format(
        "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='2'{}/>"
        "<text x='{:.1f}' y='{:.1f}' class='tick'>{}</text>",
        kWidth - kRight + 10, kWidth - kRight + 28, row, row, color, dash, kWidth - kRight + 33, row + 4,
        escape_html(name));
    row += kRow;
  };
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const char* color = kColors[i % kColors.size()];
    out += frame.line(plot.series[i], color);
    if (row < kHeight - kBottom) legend(color, "", plot.series[i].name);
  }
  if (plot.rule && row < kHeight - kBottom) legend("#888", " stroke-dasharray='5 4'", plot.rule_name);
  return out + "</svg>";
}

}  // namespace vkflux
