#include "app/frontier_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "app/gallery.h"

namespace vkflux {
namespace {

constexpr double kWidth = 460, kHeight = 320, kLeft = 62, kRight = 14, kTop = 30, kBottom = 46,
                 kMargin = 0.06;
constexpr int kTicks = 5;

struct Axis {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void cover(double v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  void pad() {
    if (!(low <= high)) low = 0, high = 1;
    const double room = high > low ? kMargin * (high - low) : std::max(std::abs(low), 1.0) * kMargin;
    low -= room;
    high += room;
  }
  double share(double v) const { return (v - low) / (high - low); }
};

struct Frame {
  Axis x, y;
  double px(double v) const { return kLeft + x.share(v) * (kWidth - kLeft - kRight); }
  double py(double v) const { return kHeight - kBottom - y.share(v) * (kHeight - kTop - kBottom); }
};

bool finite(const CurvePoint& p) {
  return std::isfinite(p.x) && std::isfinite(p.y);
}

std::string axes(const Frame& f, const std::string& x_label, const std::string& y_label) {
  std::string out;
  for (double t : round_ticks(f.x.low, f.x.high, kTicks)) {
    out += fmt::format(R"(<line x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}" stroke="#e4e4e4"/>)", f.px(t),
                       kTop, kHeight - kBottom);
    out += fmt::format(R"(<text x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>)", f.px(t),
                       kHeight - kBottom + 15, t);
  }
  for (double t : round_ticks(f.y.low, f.y.high, kTicks)) {
    out += fmt::format(R"(<line x1="{1}" y1="{0:.1f}" x2="{2}" y2="{0:.1f}" stroke="#e4e4e4"/>)", f.py(t),
                       kLeft, kWidth - kRight);
    out += fmt::format(R"(<text x="{}" y="{:.1f}" text-anchor="end">{:g}</text>)", kLeft - 5, f.py(t) + 4, t);
  }
  out += fmt::format(R"(<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                     (kLeft + kWidth - kRight) / 2, kHeight - 10, html_escape(x_label));
  out += fmt::format(
      R"svg(<text transform="translate(13 {:.1f}) rotate(-90)" text-anchor="middle">{}</text>)svg",
      (kTop + kHeight - kBottom) / 2, html_escape(y_label));
  return out;
}

std::string draw(const Curve& s, const Frame& f) {
  std::string line, dots;
  for (const CurvePoint& p : s.points) {
    if (!finite(p)) continue;
    line += fmt::format("{:.1f},{:.1f} ", f.px(p.x), f.py(p.y));
    dots +=
        fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"/>)", f.px(p.x), f.py(p.y), s.colour);
    if (!p.label.empty()) {
      dots += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" fill="{}">{}</text>)", f.px(p.x) + 5, f.py(p.y) - 5,
                          s.colour, html_escape(p.label));
    }
  }
  return fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="1.5"/>)", line,
                     s.colour) +
         dots;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(high > low) || count < 1) return {};
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (double m : {5.0, 2.0, 1.0}) {
    if (m * power >= raw) step = m * power;
  }
  std::vector<double> out;
  for (double i = std::ceil(low / step); i * step <= high; ++i) out.push_back(i * step);
  return out;
}

std::string curves_svg(const std::string& title, const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& series) {
  Frame f;
  for (const Curve& s : series) {
    for (const CurvePoint& p : s.points) {
      if (!finite(p)) continue;
      f.x.cover(p.x);
      f.y.cover(p.y);
    }
  }
  f.x.pad();
  f.y.pad();
  std::string out = fmt::format(
      R"(<svg viewBox="0 0 {0} {1}" width="{0}" height="{1}" font-family="system-ui, sans-serif" font-size="11" fill="#444" role="img" aria-label="{2}">)",
      kWidth, kHeight, html_escape(title));
  out += fmt::format(R"(<text x="{}" y="16" font-size="13" font-weight="600">{}</text>)", kLeft,
                     html_escape(title));
  out += axes(f, x_label, y_label);
  out += fmt::format(R"(<rect x="{}" y="{}" width="{}" height="{}" fill="none" stroke="#999"/>)", kLeft, kTop,
                     kWidth - kLeft - kRight, kHeight - kTop - kBottom);
  double y = kTop + 14;
  for (const Curve& s : series) {
    out += draw(s, f);
    out += fmt::format(R"(<text x="{}" y="{}" text-anchor="end" fill="{}">{}</text>)", kWidth - kRight - 6, y,
                       s.colour, html_escape(s.name));
    y += 14;
  }
  return out + "</svg>\n";
}

}  // namespace vkflux
