// Plots as inline SVG, for pages that need nothing else.
#pragma once

#include <string>
#include <vector>

namespace vkflux {

struct CurvePoint {
  double x = 0, y = 0;
  std::string label;  // beside the point; may be empty
};

struct Curve {
  std::string name, colour;        // colour as CSS
  std::vector<CurvePoint> points;  // joined by lines in this order; points that aren't finite are left out
};

/// An <svg> element with axes, ticks and a legend. Ranges cover all finite points.
std::string curves_svg(const std::string& title, const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& series);

/// About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace vkflux
