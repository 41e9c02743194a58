#include "app/controller_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "app/gallery.h"
#include "app/html.h"
#include "app/svg_plot.h"
#include "train/controller/controller_trainer.h"

namespace vkflux {
namespace {

using Points = std::vector<std::pair<double, double>>;

Points series(const ControllerReport& r, const char* name) {
  Points out;
  for (const auto& [step, values] : r.rows) {
    const auto it = values.find(name);
    if (it != values.end()) out.emplace_back(static_cast<double>(step), it->second);
  }
  return out;
}

/// Mean of up to `window` values ending at each point.
Points running_mean(const Points& points, size_t window) {
  Points out;
  double sum = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    sum += points[i].second;
    if (i >= window) sum -= points[i - window].second;
    out.emplace_back(points[i].first, sum / static_cast<double>(std::min(window, i + 1)));
  }
  return out;
}

std::string plot(const ControllerReport& r, const char* title, const char* axis, const char* metric,
                 std::vector<PlotSeries> more = {}, std::optional<double> rule = {},
                 const std::string& rule_name = "") {
  const Points raw = series(r, metric);
  Plot p;
  p.title = title;
  p.x_label = "iteration";
  p.y_label = axis;
  p.series.push_back({"each iteration", raw});
  p.series.push_back({"mean", running_mean(raw, std::max<size_t>(1, raw.size() / 10))});
  for (PlotSeries& s : more) p.series.push_back(std::move(s));
  p.rule = rule;
  p.rule_name = rule_name;
  return svg_plot(p);
}

/// A cell for every noise level and layer, the darker the likelier the student.
std::string probability_map(const ControllerReport& r) {
  constexpr int kCell = 34, kLeft = 90, kTop = 40;
  const size_t layers = r.eligible.size(), steps = r.sigmas.size();
  std::string cells;
  for (size_t n = 0; n < steps; ++n) {
    const double y = kTop + static_cast<double>(n) * kCell;
    cells += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{:.3f}</text>\n", kLeft - 8, y + 21,
                         r.sigmas[n]);
    for (size_t l = 0; l < layers; ++l) {
      const double student = r.eligible[l] ? 1 - static_cast<double>(r.full[n][l]) : 0;
      const std::string fill =
          r.eligible[l] ? fmt::format("hsl(210,70%,{:.0f}%)", 95 - 60 * student) : std::string("#ddd");
      cells += fmt::format(
          "<rect x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{2}\" fill=\"{3}\"/><text x=\"{4}\" y=\"{5}\" "
          "text-anchor=\"middle\" fill=\"{6}\">{7}</text>\n",
          kLeft + static_cast<double>(l) * kCell, y, kCell - 2, fill,
          kLeft + static_cast<double>(l) * kCell + kCell / 2.0 - 1, y + 21, student > 0.5 ? "#fff" : "#333",
          r.eligible[l] ? fmt::format("{:.0f}", 100 * student) : "-");
    }
  }
  for (size_t l = 0; l < layers; ++l) {
    cells += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                         kLeft + static_cast<double>(l) * kCell + kCell / 2.0 - 1, kTop - 8, l);
  }
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\"><title>Student "
      "probability</title>\n"
      "<text x=\"{2}\" y=\"16\" text-anchor=\"end\">sigma</text><text x=\"{3}\" y=\"16\">single "
      "block</text>\n"
      "{4}</svg>",
      kLeft + static_cast<int>(layers) * kCell + 10, kTop + static_cast<int>(steps) * kCell + 10, kLeft - 8,
      kLeft, cells);
}

}  // namespace

std::vector<std::pair<int64_t, std::map<std::string, double>>> read_metrics(const std::string& jsonl) {
  const std::string prefix = std::string(kControllerMetrics) + "/";
  std::vector<std::pair<int64_t, std::map<std::string, double>>> out;
  std::ifstream in(jsonl);
  for (std::string line; std::getline(in, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) continue;
    std::map<std::string, double> values;
    for (const auto& [name, value] : row.items()) {
      if (name.starts_with(prefix) && value.is_number())
        values[name.substr(prefix.size())] = value.get<double>();
    }
    out.emplace_back(row["step"].get<int64_t>(), std::move(values));
  }
  return out;
}

std::string controller_report_html(const ControllerReport& r) {
  std::string facts;
  for (const auto& [name, value] : r.facts)
    facts += fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", escape_html(name), escape_html(value));
  std::string plots;
  plots += plot(r, "Reward", "reward", "reward", {{"baseline", series(r, "reward_baseline")}});
  plots += plot(r, "Share of the students", "share of the eligible decisions", "ttr_eligible",
                {{"expected by the policy", series(r, "expected_ttr_eligible")}}, r.target_share, "target");
  plots += plot(r, "Distance from the full model", "quality loss", "loss");
  plots += plot(r, "Entropy of the policy", "nats a decision", "entropy");
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{0}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222; background: #fafafa; }}
main {{ display: flex; flex-wrap: wrap; gap: 1rem; }} svg {{ background: #fff; border: 1px solid #ddd; }} td {{ padding-right: 1.5rem; }}
</style></head><body>
<h1>{0}</h1>
<table>{1}</table>
<main>
{2}</main>
<h2>What was learnt</h2>
<p>Probability in percent that a layer uses its student, by noise level from the first step (top) to the last.
A dash: its student wasn't ready, so it keeps full attention.</p>
{3}
</body></html>
)",
      escape_html(r.title), facts, plots, probability_map(r));
}

}  // namespace vkflux
