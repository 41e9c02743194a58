// Line plots as inline SVG, for pages that need nothing from a network.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vkflux {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // points that aren't finite are left out
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  std::optional<double> rule;  // a dashed horizontal line
  std::string rule_name;
  bool stairs = false;     // hold every value until the next
  bool from_zero = false;  // the y axis includes 0
};

/// An <svg> element of 640 x 360 with axes, ticks and a legend. Text is escaped.
std::string svg_plot(const Plot& plot);
/// &, <, > and " as entities.
std::string escape_html(const std::string& text);

}  // namespace vkflux
