#include "train/distill/distill_metrics.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "train/metric_values.h"
#include "train/quantile.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::array<const char*, 11> kSummaries = {
    "loss",          "mse",   "nmse",      "cosine_similarity", "ema_cosine_dist", "ema_loss",
    "alpha_sigmoid", "sigma", "cfg_scale", "layers_swapped",    "layers_total"};

size_t index_of(const char* metric) {
  for (size_t i = 0; i < kLayerMetrics.size(); ++i) {
    if (std::strcmp(kLayerMetrics[i], metric) == 0) return i;
  }
  throw Error(ErrorCode::internal, fmt::format("no metric {}", metric));
}

io::Json to_array(const LayerValues& values) {
  io::Json out = io::Json::array();
  for (double x : values) out.push_back(std::isfinite(x) ? io::Json(x) : io::Json(nullptr));
  return out;
}

io::Json named(const std::string& prefix, const LayerValues& values) {
  io::Json out = io::Json::object();
  for (size_t i = 0; i < values.size(); ++i) out[prefix + kLayerMetrics[i]] = values[i];
  return out;
}

LayerValues from_array(const io::Json& json) {
  LayerValues out = no_values();
  if (!json.is_array() || json.size() != out.size()) {
    throw Error(ErrorCode::format, "the metrics of a layer are damaged");
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (json[i].is_null()) continue;
    if (!json[i].is_number()) throw Error(ErrorCode::format, "a metric of a layer is no number");
    out[i] = json[i].get<double>();
  }
  return out;
}

}  // namespace

LayerValues no_values() {
  LayerValues v;
  v.fill(kNone);
  return v;
}

double& value_of(LayerValues& values, const char* metric) {
  return values[index_of(metric)];
}

double value_of(const LayerValues& values, const char* metric) {
  return values[index_of(metric)];
}

ParetoScore DistillMetrics::pareto(const Students& students) const {
  std::vector<TrackedLayer> tracked;
  for (const auto& [layer, values] : latest_) {
    const double similarity = value_of(values, "cosine_similarity");
    tracked.push_back({students.layers.at(layer)->readiness,
                       std::isfinite(similarity) ? std::optional(similarity) : std::nullopt});
  }
  return pareto_score(tracked);
}

void DistillMetrics::record(const std::string& layer, const LayerValues& values) {
  LayerValues& last = latest_.try_emplace(layer, no_values()).first->second;
  Averages& average = averages_.try_emplace(layer, Averages{0, no_values()}).first->second;
  ++average.records;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) continue;
    last[i] = values[i];
    double& mean = average.values[i];
    mean = std::isfinite(mean) ? mean + (values[i] - mean) / static_cast<double>(average.records) : values[i];
  }
}

std::vector<double> DistillMetrics::column(const char* metric) const {
  const size_t at = index_of(metric);
  std::vector<double> out;
  for (const auto& [layer, values] : latest_) out.push_back(values[at]);
  return out;
}

Metrics DistillMetrics::report(const std::string& layer, const Students& students,
                               const DistillTotals& totals) const {
  Metrics out;
  const auto add = [&](const std::string& part, const io::Json& values) {
    const Metrics more = prefixed_metrics("flux2ttr/" + part, values);
    out.insert(out.end(), more.begin(), more.end());
  };
  for (const auto& [name, values] : latest_) add(layer_key(name), named("", values));
  if (const auto it = averages_.find(layer); it != averages_.end())
    add(layer_key(layer), named("avg_", it->second.values));
  io::Json all = io::Json::object();
  const auto global = [&](const std::string& name, double value) { all[name] = value; };
  const auto tracked = static_cast<double>(latest_.size());
  double ready = 0;
  for (const auto& [name, values] : latest_) ready += students.layers.at(name)->readiness.ready;
  global("steps_remaining", static_cast<double>(totals.remaining));
  global("updates_done", static_cast<double>(totals.updates));
  global("log_var_huber", totals.log_var_huber);
  global("log_var_cosine", totals.log_var_cosine);
  global("layers_tracked", tracked);
  global("layers_ready", ready);
  global("layers_ready_ratio", tracked > 0 ? ready / tracked : 0);
  for (const char* metric : kSummaries) {
    const std::vector<double> values = column(metric);
    for (const auto& [suffix, q] :
         {std::pair{"min", 0.0}, {"p25", 0.25}, {"p50", 0.5}, {"p75", 0.75}, {"max", 1.0}}) {
      global(fmt::format("{}_{}", metric, suffix), quantile(values, q));
    }
  }
  const ParetoScore p = pareto(students);
  global("pareto_frontier", p.score);
  global("pareto_worst_ema_cosine_dist", p.worst);
  add("global", all);
  return out;
}

std::string DistillMetrics::snapshot(const Students& students, const DistillTotals& totals) const {
  const auto range = [&](const char* metric) {
    const std::vector<double> values = column(metric);
    return fmt::format("{:.4g}..{:.4g}", quantile(values, 0.25), quantile(values, 0.75));
  };
  constexpr double kMega = 1 << 20;
  return fmt::format(
      "update {}/{} ({} left), layers trained {}, ready {} of {} [{}]\n"
      "  replay {:.1f}/{:.0f} MB, log-variances huber {:.4f} cosine {:.4f}, pareto {:.2f}\n"
      "  quartiles over layers: loss {}, EMA {}, cosine {}, nmse {}",
      totals.updates, totals.updates + totals.remaining, totals.remaining, latest_.size(),
      students.ready().size(), students.layers.size(), fmt::join(students.ready(), " "),
      static_cast<double>(totals.replay_bytes) / kMega, static_cast<double>(totals.replay_budget) / kMega,
      totals.log_var_huber, totals.log_var_cosine, pareto(students).score, range("loss"), range("ema_loss"),
      range("cosine_similarity"), range("nmse"));
}

io::Json DistillMetrics::to_json() const {
  io::Json out = io::Json::object();
  for (const auto& [layer, values] : latest_) {
    const Averages& a = averages_.at(layer);
    out[layer] = {{"latest", to_array(values)}, {"average", to_array(a.values)}, {"records", a.records}};
  }
  return out;
}

void DistillMetrics::from_json(const io::Json& json) {
  ByLayer<LayerValues> latest;
  ByLayer<Averages> averages;
  for (const auto& [layer, row] : json.items()) {
    latest[layer] = from_array(io::get<io::Json>(row, "latest", "metrics"));
    averages[layer] = {io::get<int64_t>(row, "records", "metrics"),
                       from_array(io::get<io::Json>(row, "average", "metrics"))};
  }
  latest_ = std::move(latest);
  averages_ = std::move(averages);
}

}  // namespace vkflux
