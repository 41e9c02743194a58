#include "app/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>

#include "app/html.h"

namespace vkflux {
namespace {

constexpr double kWidth = 640, kHeight = 360, kLeft = 64, kRight = 16, kTop = 32, kBottom = 44;
constexpr double kDot = 3.5, kLetter = 6.4, kLine = 12;  // of the marks and their labels
constexpr int kLegendColumns = 3;
constexpr std::array<const char*, 8> kColors = {"#1f6fb4", "#d9730d", "#2c8c3c", "#b3261e",
                                                "#7a4fb5", "#8a5a3b", "#c2418f", "#5f6b76"};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double x) {
    if (!std::isfinite(x)) return;
    low = std::min(low, x);
    high = std::max(high, x);
  }
  // `marked`: with room for marks at the ends.
  void settle(bool marked) {
    if (!(low <= high)) *this = {0, 1};
    if (low < high && !marked) return;
    constexpr double kMargin = 0.06;
    const double room = low < high ? kMargin * (high - low) : low == 0 ? 1 : std::fabs(low) * 0.1;
    low -= room;
    high += room;
  }
};

struct Box {
  double left, top, right, bottom;
  bool meets(const Box& o) const {
    return left < o.right && o.left < right && top < o.bottom && o.top < bottom;
  }
  bool inside() const {
    return left >= kLeft && right <= kWidth - kRight && top >= kTop && bottom <= kHeight - kBottom;
  }
};

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
    const bool marked = std::any_of(plot.series.begin(), plot.series.end(),
                                    [](const PlotSeries& s) { return !s.labels.empty(); });
    x_.settle(marked);
    y_.settle(marked);
  }
  double x(double v) const { return kLeft + (v - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight); }
  double y(double v) const {
    return kHeight - kBottom - (v - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }
  std::string axes() const {
    std::string out;
    constexpr int kTicks = 6;
    for (const double v : round_ticks(y_.low, y_.high, kTicks)) {
      out += fmt::format(
          "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' class='grid'/><text x='{:.1f}' y='{:.1f}' "
          "class='tick' text-anchor='end'>{:.4g}</text>",
          kLeft, kWidth - kRight, y(v), y(v), kLeft - 6, y(v) + 4, v);
    }
    for (const double v : round_ticks(x_.low, x_.high, kTicks)) {
      out += fmt::format("<text x='{:.1f}' y='{:.1f}' class='tick' text-anchor='middle'>{:.6g}</text>", x(v),
                         kHeight - kBottom + 16, v);
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
  // The marks of all series, then their labels where there is room for them.
  std::string marks() const {
    std::string out;
    std::vector<Box> taken;
    const auto each = [&](const auto& fn) {
      for (size_t i = 0; i < plot_.series.size(); ++i) {
        const PlotSeries& s = plot_.series[i];
        for (size_t k = 0; k < std::min(s.points.size(), s.labels.size()); ++k) {
          const auto [px, py] = s.points[k];
          if (std::isfinite(px) && std::isfinite(py))
            fn(x(px), y(py), kColors[i % kColors.size()], s.labels[k]);
        }
      }
    };
    each([&](double px, double py, const char* color, const std::string& label) {
      out += fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='{}' fill='{}'><title>{}</title></circle>", px,
                         py, kDot, color, escape_html(label));
      taken.push_back({px - kDot, py - kDot, px + kDot, py + kDot});
    });
    each([&](double px, double py, const char* color, const std::string& label) {
      const double wide = kLetter * static_cast<double>(label.size()), near = kDot + 2, far = near + wide;
      // Right, left, above and below, the corners first.
      for (const auto& [dx, dy] :
           std::initializer_list<std::pair<double, double>>{{near, -near},
                                                            {-far, -near},
                                                            {near, near + kLine - 2},
                                                            {-far, near + kLine - 2},
                                                            {near, kLine / 2 - 2},
                                                            {-far, kLine / 2 - 2},
                                                            {-wide / 2, -near},
                                                            {-wide / 2, near + kLine - 2}}) {
        const Box box{px + dx, py + dy - kLine + 2, px + dx + wide, py + dy + 2};
        if (!box.inside() ||
            std::any_of(taken.begin(), taken.end(), [&](const Box& b) { return b.meets(box); }))
          continue;
        taken.push_back(box);
        out += fmt::format("<text x='{:.1f}' y='{:.1f}' class='tick' style='fill:{}'>{}</text>", box.left,
                           py + dy, color, escape_html(label));
        break;
      }
    });
    return out;
  }

 private:
  const Plot& plot_;
  Range x_, y_;
};

}  // namespace

std::vector<double> round_ticks(double low, double high, int most) {
  if (!(high > low) || most < 1) return {};
  const double raw = (high - low) / most, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (double m : {5.0, 2.0, 1.0}) {
    if (m * power >= raw) step = m * power;
  }
  std::vector<double> out;
  constexpr double kNearly = 1e-9;  // of a step
  for (double i = std::ceil(low / step - kNearly); i * step <= high + kNearly * step; ++i)
    out.push_back(i == 0 ? 0 : i * step);
  return out;
}

std::string svg_plot(const Plot& plot) {
  const Frame frame(plot);
  constexpr double kRow = 17;
  const size_t entries = plot.series.size() + (plot.rule ? 1 : 0);
  const double rows = static_cast<double>((entries + kLegendColumns - 1) / kLegendColumns);
  std::string out = fmt::format(
      "<svg viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' height='{1:.0f}' font-family='sans-serif'>"
      "<style>.grid{{stroke:#ddd}}.tick{{font-size:11px;fill:#555}}.label{{font-size:12px;fill:#333}}"
      ".title{{font-size:14px;fill:#111}}</style>",
      kWidth, kHeight + kRow * rows + 4);
  out += frame.axes();
  size_t entry = 0;
  const auto legend = [&](const char* color, const char* dash, const std::string& name) {
    const double x = kLeft + static_cast<double>(entry % kLegendColumns) * (kWidth - kLeft) / kLegendColumns,
                 y = kHeight + kRow * (static_cast<double>(entry / kLegendColumns) + 0.5);
    out += fmt::format(
        "<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' stroke='{}' stroke-width='2'{}/>"
        "<text x='{:.1f}' y='{:.1f}' class='tick'>{}</text>",
        x, x + 18, y, y, color, dash, x + 23, y + 4, escape_html(name));
    ++entry;
  };
  for (size_t i = 0; i < plot.series.size(); ++i) {
    const char* color = kColors[i % kColors.size()];
    out += frame.line(plot.series[i], color);
    legend(color, "", plot.series[i].name);
  }
  if (plot.rule) {
    constexpr const char* kDash = " stroke-dasharray='5 4'";
    out += fmt::format("<line x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}' stroke='#888'{}/>", kLeft,
                       kWidth - kRight, frame.y(*plot.rule), frame.y(*plot.rule), kDash);
    legend("#888", kDash, plot.rule_name);
  }
  return out + frame.marks() + "</svg>\n";
}

}  // namespace vkflux
