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
  std::vector<std::string> labels = {};           // of the points, which are then marked; empty: a line alone
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotSeries> series;
  std::optional<double> rule = {};  // a dashed horizontal line
  std::string rule_name = {};
  bool stairs = false;     // hold every value until the next
  bool from_zero = false;  // the y axis includes 0
};

/// An <svg> element 640 wide with axes, ticks and a legend of every series below them. Text is escaped. A
/// label stands where it covers no point and no other label; where there is no such place, the point shows it
/// when pointed at.
std::string svg_plot(const Plot& plot);
/// Some `most` round numbers at most (1, 2 or 5 times a power of ten apart) within [low, high].
std::vector<double> round_ticks(double low, double high, int most);

}  // namespace vkflux
