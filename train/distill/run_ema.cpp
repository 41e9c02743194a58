#include "train/distill/run_ema.h"
#include "model/io/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

namespace vkflux {
namespace {

void fold(std::optional<double>& average, const std::vector<double>& values) {
  if (values.empty()) return;
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  average = average ? RunEma::kDecay * *average + (1.0 - RunEma::kDecay) * mean : mean;
}

// JSON has no NaN or infinity.
io::Json encode(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}
double decode(const io::Json& value) {
  if (value.is_number()) return value.get<double>();
  const std::string text = value.is_string() ? value.get<std::string>() : std::string();
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  throw Error(ErrorCode::format,
              fmt::format("run averages: {} instead of a number", io::json_text(value).substr(0, 80)));
}
std::vector<double> decode_list(const io::Json& object, const char* key) {
  std::vector<double> out;
  for (const io::Json& value : io::get<std::vector<io::Json>>(object, key, "run averages"))
    out.push_back(decode(value));
  return out;
}

}  // namespace

bool RunEma::begin_call(std::optional<double> sigma) {
  if (!sigma || !std::isfinite(*sigma)) return false;
  const std::optional<double> previous = last_sigma_;
  last_sigma_ = sigma;
  return previous && *sigma > kSigmaJump * *previous;
}

bool RunEma::add_loss(const std::string& layer, double loss, Readiness& readiness) {
  pending_[layer].losses.push_back(loss);
  ++readiness.updates;
  return readiness.refresh();
}

void RunEma::add_similarity(const std::string& layer, double cosine_similarity) {
  const double distance = 1.0 - cosine_similarity;
  if (std::isfinite(distance)) pending_[layer].distances.push_back(std::clamp(distance, 0.0, 1.0));
}

bool RunEma::flush_due() const {
  size_t total = 0;
  for (const auto& [layer, pending] : pending_) total += pending.losses.size();
  return total >= kFlushLosses;
}

std::vector<EmaFlush> RunEma::flush(const ByLayer<Readiness*>& readiness) {
  std::vector<EmaFlush> done;
  for (const auto& [layer, pending] : pending_) {
    const auto found = readiness.find(layer);
    if (found == readiness.end() || (pending.losses.empty() && pending.distances.empty())) continue;
    Readiness& r = *found->second;
    fold(r.ema_loss, pending.losses);
    fold(r.ema_cosine_dist, pending.distances);
    const bool changed = r.refresh();
    done.push_back({layer, pending.losses.size(), pending.distances.size(), changed});
  }
  pending_.clear();
  return done;
}

size_t RunEma::pending_losses(const std::string& layer) const {
  const auto found = pending_.find(layer);
  return found == pending_.end() ? 0 : found->second.losses.size();
}

void RunEma::clear() {
  pending_.clear();
  last_sigma_.reset();
}

io::Json RunEma::to_json() const {
  io::Json layers = io::Json::array();
  for (const auto& [layer, pending] : pending_) {
    io::Json losses = io::Json::array(), distances = io::Json::array();
    for (double v : pending.losses) losses.push_back(encode(v));
    for (double v : pending.distances) distances.push_back(encode(v));
    layers.push_back({{"layer", layer}, {"losses", losses}, {"distances", distances}});
  }
  io::Json state{{"last_sigma", nullptr}, {"pending", layers}};
  if (last_sigma_) state["last_sigma"] = *last_sigma_;
  return state;
}

void RunEma::restore(const io::Json& state) {
  RunEma read;
  if (state.is_object() && state.contains("last_sigma") && !state["last_sigma"].is_null())
    read.last_sigma_ = io::get<double>(state, "last_sigma", "run averages");
  for (const io::Json& entry : io::get<std::vector<io::Json>>(state, "pending", "run averages")) {
    Pending& pending = read.pending_[io::get<std::string>(entry, "layer", "run averages")];
    pending.losses = decode_list(entry, "losses");
    pending.distances = decode_list(entry, "distances");
  }
  *this = std::move(read);
}

ParetoScore pareto_score(const std::vector<TrackedLayer>& layers) {
  ParetoScore p;
  for (const TrackedLayer& layer : layers) {
    if (!layer.readiness.ready) continue;
    double distance = 1.0;
    if (layer.readiness.ema_cosine_dist) {
      distance = *layer.readiness.ema_cosine_dist;
    } else if (layer.cosine_similarity) {
      distance = 1.0 - *layer.cosine_similarity;
    }
    if (!std::isfinite(distance)) distance = 1.0;
    p.worst = std::max(p.worst, std::clamp(distance, 0.0, 1.0));
    ++p.ready;
  }
  if (p.ready == 0) {
    p.worst = std::numeric_limits<double>::quiet_NaN();
    return p;
  }
  p.score = static_cast<double>(p.ready) * std::max(0.0, 1.0 - p.worst);
  return p;
}

}  // namespace vkflux
