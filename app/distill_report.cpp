#include "app/distill_report.h"

#include <fmt/format.h>

#include <map>
#include <sstream>

#include "app/html.h"
#include "app/svg_plot.h"

namespace vkflux {
namespace {

/// metric -> series by layer ("single:3"), over updates.
using Curves = std::map<std::string, std::map<int, PlotSeries>>;

void add_row(Curves& curves, std::map<std::string, PlotSeries>& global, const nlohmann::json& row) {
  const double step = row.value("step", 0.0);
  for (const auto& [name, value] : row.items()) {
    if (!value.is_number()) continue;
    constexpr std::string_view kLayer = "flux2ttr/single:", kGlobal = "flux2ttr/global/";
    if (name.starts_with(kGlobal)) {
      global[name.substr(kGlobal.size())].points.emplace_back(step, value.get<double>());
    }
    if (!name.starts_with(kLayer)) continue;
    const size_t slash = name.find('/', kLayer.size());
    if (slash == std::string::npos) continue;
    const std::string layer = name.substr(kLayer.size(), slash - kLayer.size());
    if (layer.empty() || layer.size() > 4 || layer.find_first_not_of("0123456789") != std::string::npos) {
      continue;
    }
    PlotSeries& s = curves[name.substr(slash + 1)][std::stoi(layer)];
    s.name = "single:" + layer;
    s.points.emplace_back(step, value.get<double>());
  }
}

std::vector<PlotSeries> lines(const Curves& curves, const std::string& metric) {
  std::vector<PlotSeries> out;
  const auto it = curves.find(metric);
  if (it == curves.end()) return out;
  for (const auto& [layer, series] : it->second) out.push_back(series);
  return out;
}

std::string cell(const io::Json& value) {
  if (value.is_null()) return "<td>–</td>";
  if (value.is_number_float()) return fmt::format("<td>{:.4g}</td>", value.get<double>());
  return fmt::format("<td>{}</td>", escape_html(value.is_string() ? value.get<std::string>() : value.dump()));
}

std::string table(const io::Json& rows) {
  if (!rows.is_array() || rows.empty()) return "";
  std::string out = "<table><tr>";
  for (const auto& [key, value] : rows[0].items()) out += "<th>" + escape_html(key) + "</th>";
  out += "</tr>";
  for (const io::Json& row : rows) {
    out += "<tr>";
    for (const auto& [key, value] : row.items()) out += cell(value);
    out += "</tr>";
  }
  return out + "</table>";
}

std::string settings_table(const io::Json& settings) {
  std::string out = "<table>";
  for (const auto& [key, value] : settings.items()) {
    out += "<tr><th>" + escape_html(key) + "</th>" + cell(value) + "</tr>";
  }
  return out + "</table>";
}

}  // namespace

std::string distill_report_html(const io::Json& summary, const std::string& metrics) {
  Curves curves;
  std::map<std::string, PlotSeries> global;
  std::istringstream in(metrics);
  for (std::string line; std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (row.is_object()) add_row(curves, global, row);
  }
  std::vector<PlotSeries> similarity = lines(curves, "cosine_similarity");
  for (PlotSeries& s : similarity) {
    for (auto& [x, y] : s.points) y = 1 - y;
  }
  PlotSeries ready = global["layers_ready"];
  ready.name = "ready";
  std::vector<PlotSeries> readiness = lines(curves, "ready");
  readiness.push_back(ready);
  readiness.back().name = "all together";
  const double threshold = summary.value("threshold", 0.0);
  const std::string updates = "updates (all layers)";
  std::vector<Plot> plots;
  plots.push_back({"Cosine distance, moving average", updates, "1 - cosine", lines(curves, "ema_cosine_dist"),
                   threshold, "threshold", false, true});
  plots.push_back({"Cosine distance of single updates", updates, "1 - cosine", similarity, threshold,
                   "threshold", false, true});
  plots.push_back({"Loss", updates, "weighted Huber + cosine", lines(curves, "loss"), {}, "", false, false});
  plots.push_back({"Ready layers", updates, "ready (1) or not (0); all", readiness, {}, "", true, true});
  plots.push_back({"Landmark weight (sigmoid of alpha)",
                   updates,
                   "sigmoid(alpha)",
                   lines(curves, "alpha_sigmoid"),
                   {},
                   "",
                   false,
                   false});
  plots.push_back({"Normalised squared error",
                   updates,
                   "mse / mean teacher^2",
                   lines(curves, "nmse"),
                   {},
                   "",
                   false,
                   true});
  std::string body;
  for (const Plot& p : plots) body += svg_plot(p);
  return fmt::format(
      "<!doctype html><html lang='en'><meta charset='utf-8'><title>Distillation: {0}</title>"
      "<style>body{{font:15px/1.5 sans-serif;max-width:1320px;margin:2em auto;padding:0 1em;color:#222}}"
      "table{{border-collapse:collapse;margin:1em 0}}th,td{{padding:.2em .8em;border-bottom:1px solid #ddd;"
      "text-align:left;font-weight:normal}}th{{color:#666}}svg{{max-width:100%}}</style>"
      "<h1>Students of {0}</h1><p>{1}</p>{2}<p>{3}</p><h2>Settings</h2>{4}</html>\n",
      escape_html(summary.value("model", "")), escape_html(summary.value("conclusion", "")),
      table(summary.value("layers", io::Json::array())), body,
      settings_table(summary.value("settings", io::Json::object())));
}

}  // namespace vkflux
