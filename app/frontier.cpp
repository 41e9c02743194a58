#include "app/frontier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "app/html.h"
#include "app/routing.h"
#include "app/svg_plot.h"
#include "model/io/decimal.h"

namespace vkflux {
namespace {

using Json = nlohmann::ordered_json;

std::string number(double v, int digits) {
  return std::isfinite(v) ? fmt::format("{:.{}f}", v, digits) : "equal";
}

template <class X, class Y>
std::string plot(const Frontier& f, const std::string& title, const std::string& x_label,
                 const std::string& y_label, X x, Y y) {
  Plot plot{
      title, x_label, y_label, {{"routed, by --quality-speed", {}}, {"full attention, fewer steps", {}}}};
  const auto add = [&](size_t series, const FrontierPoint& p, const std::string& label) {
    plot.series[series].points.emplace_back(x(p), y(p));
    plot.series[series].labels.push_back(label);
  };
  add(1, f.points.front(), std::to_string(f.points.front().steps));
  for (const FrontierPoint& p : f.points) {
    if (p.series == "routed") add(0, p, fmt::format("{:g}", p.knob));
    if (p.series == "fewer steps") add(1, p, std::to_string(p.steps));
  }
  return svg_plot(plot);
}

std::string table(const Frontier& f) {
  std::string out =
      "<table><thead><tr><th>setting<th>steps<th>students<th>s per picture<th>all timings<th>time"
      "<th>TFLOP<th>FLOPs<th>attention FLOPs<th>PSNR dB<th>SSIM<th>latent cosine<th>latent RMSE</thead>\n";
  const FrontierPoint& full = f.points.front();
  for (const FrontierPoint& p : f.points) {
    std::string all;
    for (double s : p.seconds) all += fmt::format("{}{:.3f}", all.empty() ? "" : " ", s);
    out += fmt::format(
        "<tr><td>{}<td>{}<td>{:.0f}%<td>{:.3f}<td>{}<td>{:.0f}%<td>{:.4f}<td>{:.1f}%<td>{:.1f}%<td>{}<td>{:."
        "4f}"
        "<td>{:.5f}<td>{:.5f}\n",
        escape_html(p.label()), p.steps, 100 * p.student_share, p.median_seconds(), all,
        100 * p.median_seconds() / full.median_seconds(), p.flops * 1e-12, 100 * p.flops / full.flops,
        100 * p.attention_flops / full.attention_flops, number(p.quality.psnr(), 2),
        p.quality.ssim / static_cast<double>(p.quality.pictures),
        p.quality.latent_cosine / static_cast<double>(p.quality.pictures), p.quality.latent_rmse());
  }
  return out + "</table>\n";
}

std::string pictures(const Frontier& f) {
  std::string out;
  for (size_t i = 0; i < f.shown.size(); ++i) {
    out += fmt::format("<h3>{}</h3><div class=\"row\">\n", escape_html(f.shown[i]));
    for (const FrontierPoint& p : f.points) {
      out += fmt::format(
          "<figure><img alt=\"\" src=\"data:image/png;base64,{}\"><figcaption>{}</figcaption></figure>\n",
          base64(p.pngs.at(i)), escape_html(p.label()));
    }
    out += "</div>\n";
  }
  return out;
}

}  // namespace

void QualityMean::add(const PictureMetrics& picture, const VectorMetrics& latent) {
  ++pictures;
  square += picture.rmse * picture.rmse;
  ssim += picture.ssim;
  cosine += picture.cosine;
  latent_cosine += latent.cosine;
  latent_square += latent.rmse * latent.rmse;
}

double QualityMean::psnr() const {
  return square > 0 ? -10 * std::log10(square / static_cast<double>(pictures))
                    : std::numeric_limits<double>::infinity();
}

double QualityMean::latent_rmse() const {
  return std::sqrt(latent_square / static_cast<double>(std::max<int64_t>(pictures, 1)));
}

double FrontierPoint::median_seconds() const {
  return median(seconds);
}

std::string FrontierPoint::label() const {
  if (series == "routed") return fmt::format("quality-speed {:g}", knob);
  return series == "full" ? "full attention" : fmt::format("{} steps", steps);
}

Json FrontierPoint::json() const {
  const auto n = static_cast<double>(std::max<int64_t>(quality.pictures, 1));
  Json j{{"series", series}};
  if (series == "routed") j["quality_speed"] = knob;
  j["steps"] = steps;
  j["student_share"] = student_share;
  j["seconds"] = seconds;
  j["median_seconds"] = median_seconds();
  j["flops"] = flops;
  j["attention_flops"] = attention_flops;
  j["psnr"] = std::isfinite(quality.psnr()) ? Json(quality.psnr()) : Json(nullptr);
  j["ssim"] = quality.ssim / n;
  j["cosine"] = quality.cosine / n;
  j["latent_cosine"] = quality.latent_cosine / n;
  j["latent_rmse"] = quality.latent_rmse();
  return j;
}

Json Frontier::json() const {
  Json j{{"device", device},        {"driver", driver},
         {"model", model},          {"ttr", ttr},
         {"policy", policy},        {"width", width},
         {"height", height},        {"steps", steps},
         {"cfg", io::decimal(cfg)}, {"guidance", io::decimal(guidance)},
         {"pictures", pictures},    {"repeats", repeats}};
  j["controller"] = controller.empty() ? Json(nullptr) : Json(controller);
  j["points"] = Json::array();
  for (const FrontierPoint& p : points) j["points"].push_back(p.json());
  return j;
}

std::string Frontier::html() const {
  const auto seconds = [](const FrontierPoint& p) { return p.median_seconds(); };
  const auto psnr = [](const FrontierPoint& p) { return p.quality.psnr(); };
  const auto ssim = [](const FrontierPoint& p) {
    return p.quality.ssim / static_cast<double>(p.quality.pictures);
  };
  const auto rmse = [](const FrontierPoint& p) { return p.quality.latent_rmse(); };
  const double full_flops = points.front().flops;
  const auto work = [full_flops](const FrontierPoint& p) { return 100 * p.flops / full_flops; };
  std::string plots =
      plot(*this, "Picture quality against time", "seconds per picture", "PSNR, dB", seconds, psnr);
  plots += plot(*this, "Structure against time", "seconds per picture", "SSIM", seconds, ssim);
  plots += plot(*this, "Latent error against time", "seconds per picture", "latent RMSE", seconds, rmse);
  plots += plot(*this, "Latent error against work", "FLOPs, % of full attention at full steps", "latent RMSE",
                work, rmse);
  return fmt::format(
      R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>vkflux: quality and time of {model}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #222; background: #fafafa; }}
svg {{ background: #fff; border: 1px solid #ddd; border-radius: .4rem; max-width: 100%; height: auto; }}
.plots {{ display: flex; flex-wrap: wrap; gap: .8rem; }} .scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .8rem; background: #fff; }} th, td {{ border: 1px solid #ddd; padding: .25rem .5rem; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; white-space: nowrap; }}
.row {{ display: flex; gap: .5rem; overflow-x: auto; }} figure {{ margin: 0; flex: 0 0 6.5rem; }} figure img {{ width: 100%; }}
figcaption {{ font-size: .72rem; color: #555; }} h3 {{ margin: .8rem 0 .2rem; font-size: 1rem; }}
</style></head><body>
<h1>Quality and time of {model}</h1>
<p>{pictures} pictures of {width}x{height}, {steps} Euler steps, true guidance {cfg}; students {ttr}, {control}. Device: {device} ({driver}).
Quality is measured against full attention at all {steps} steps from the same noise. Time is that of denoising alone, the median of
{repeats} repetitions whose order goes round all settings, so that other load on the machine meets every setting alike; FLOPs are counted and don't depend on it.
The blue curve is what anybody can do without students: take fewer steps.</p>
<div class="plots">
{plots}</div>
<h2>Figures</h2><div class="scroll">
{table}</div>
<h2>Pictures</h2>
{shown}</body></html>
)",
      fmt::arg("model", escape_html(model)), fmt::arg("pictures", this->pictures), fmt::arg("width", width),
      fmt::arg("height", height), fmt::arg("steps", steps), fmt::arg("cfg", cfg),
      fmt::arg("ttr", escape_html(ttr)),
      fmt::arg("control", controller.empty() ? "without a controller (all ready layers, or none)"
                                             : escape_html("chosen by " + controller + ", policy " + policy)),
      fmt::arg("device", escape_html(device)), fmt::arg("driver", escape_html(driver)),
      fmt::arg("repeats", repeats), fmt::arg("plots", plots), fmt::arg("table", table(*this)),
      fmt::arg("shown", vkflux::pictures(*this)));
}

}  // namespace vkflux
