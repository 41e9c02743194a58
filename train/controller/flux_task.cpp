#include "train/controller/flux_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "train/data/dataset.h"
#include "vk/error.h"

namespace vkflux {
namespace {

enum Stream : uint32_t { kPictures = 41, kGroups = 42 };

Tensor repeated(const Tensor& x, int64_t batch) {
  Shape shape = x.shape();
  shape[0] = batch;
  return op::expand(x, shape);
}

/// Rows `ids` of the first dimension.
Tensor pick(const Tensor& x, const Tensor& ids) {
  Shape shape = x.shape();
  const int64_t n = shape[0];
  shape[0] = ids.dim(0);
  return op::reshape(op::gather_rows(op::reshape(x, {n, x.numel() / n}), ids), shape);
}

}  // namespace

FluxRoutingTask::FluxRoutingTask(Flux1& transformer, const AutoencoderKL* vae, FluxCondition prompts,
                                 std::optional<FluxCondition> empty, const QualityLoss& quality,
                                 const FluxTaskOptions& options)
    : transformer_(transformer),
      vae_(vae),
      prompts_(std::move(prompts)),
      empty_(std::move(empty)),
      quality_(quality),
      options_(options) {
  if (options_.images < 1 || options_.seeds < 1)
    throw Error(ErrorCode::invalid_argument,
                "training needs at least one picture a plan and one seed a prompt");
  if (quality_.needs_images() && !vae_)
    throw Error(ErrorCode::invalid_argument, "a reward on images needs the autoencoder");
  for (size_t i = 0; i + 1 < options_.levels.size(); ++i) {
    inputs_.push_back(
        {options_.levels[i], static_cast<double>(options_.cfg), options_.width, options_.height});
  }
  if (inputs_.empty()) throw Error(ErrorCode::invalid_argument, "training needs at least one sampling step");
  order_ = epoch_order(static_cast<size_t>(prompts_.y.dim(0) * options_.seeds), options_.seed, kPictures, 0);
  options_.images = std::min(options_.images, pictures());
  groups_ = (pictures() + options_.images - 1) / options_.images;
}

int64_t FluxRoutingTask::picture(int64_t group, int64_t b) const {
  return static_cast<int64_t>(order_[static_cast<size_t>((group * options_.images + b) % pictures())]);
}

FluxCondition FluxRoutingTask::conditions(int64_t group) const {
  std::vector<int32_t> ids;
  for (int64_t b = 0; b < options_.images; ++b)
    ids.push_back(static_cast<int32_t>(picture(group, b) % prompts_.y.dim(0)));
  const Tensor rows = Tensor::from(prompts_.y.device(), std::span<const int32_t>(ids), {options_.images});
  return {pick(prompts_.txt, rows), pick(prompts_.y, rows)};
}

FluxRoutingTask::Result FluxRoutingTask::sample(int64_t group, const std::vector<RoutePlan>& plans) {
  Device& device = prompts_.y.device();
  std::vector<Tensor> noise;
  for (int64_t b = 0; b < options_.images; ++b) {
    noise.push_back(initial_noise(device, 1, options_.latent,
                                  options_.seed + static_cast<uint64_t>(picture(group, b)), options_.noise));
  }
  DenoiseOptions d;
  d.levels = options_.levels;
  d.guidance = options_.guidance;
  d.cfg = options_.cfg;
  d.rows = options_.rows;
  d.columns = options_.columns;
  d.width = options_.width;
  d.height = options_.height;
  d.plans = plans;
  std::optional<FluxCondition> negative;
  if (d.cfg != 1 && empty_) {
    negative = FluxCondition{repeated(empty_->txt, options_.images), repeated(empty_->y, options_.images)};
  }
  FluxDenoiser run(transformer_, conditions(group), negative, op::patchify(op::concat(noise, 0), 2), d);
  refusals_.clear();
  while (!run.finished()) {
    run.step();
    for (const ServedLayer& s : transformer_.attention().served()) {
      if (!s.refusal.empty() && refusals_.size() < 8) refusals_.push_back(s.refusal);
    }
  }
  run.check_finite();
  Result out;
  out.latents = op::unpatchify(run.x(), 2, options_.latent[1], options_.latent[2]);
  if (!quality_.needs_images()) return out;
  std::vector<Tensor> images;
  for (int64_t b = 0; b < options_.images; ++b)
    images.push_back(vae_->decode(vae_->from_latent(op::narrow(out.latents, 0, b, 1))));
  out.images = op::concat(images, 0);
  return out;
}

FluxRoutingTask::Result FluxRoutingTask::teacher(int64_t group) {
  for (const Cached& c : cache_) {
    if (c.group == group) return c.result;
  }
  const RoutePlan full;
  const Result r = sample(group, std::vector<RoutePlan>(inputs_.size(), full));
  const auto bytes = [](const Result& x) { return x.latents.bytes() + (x.images ? x.images.bytes() : 0); };
  cache_.push_back({group, r});
  cached_bytes_ += bytes(r);
  while (cached_bytes_ > options_.cache_bytes && cache_.size() > 1) {
    cached_bytes_ -= bytes(cache_.front().result);
    cache_.pop_front();
  }
  return r;
}

PlayedQuality FluxRoutingTask::play(int64_t iteration, const std::vector<RouteDecision>& decisions) {
  const auto order = epoch_order(static_cast<size_t>(groups_), options_.seed, kGroups,
                                 static_cast<uint32_t>(iteration / groups_));
  return play_group(static_cast<int64_t>(order[static_cast<size_t>(iteration % groups_)]), decisions);
}

PlayedQuality FluxRoutingTask::play_group(int64_t group, const std::vector<RouteDecision>& decisions) {
  if (decisions.size() != inputs_.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("decisions for {} of {} steps", decisions.size(), inputs_.size()));
  }
  std::vector<RoutePlan> plans;
  for (const RouteDecision& d : decisions) plans.push_back(route_plan(d, transformer_.config().depth));
  const Result full = teacher(group), routed = sample(group, plans);
  transformer_.attention().route({});
  const QualityLoss::Value value = quality_.each({routed.latents, full.latents, routed.images, full.images});
  PlayedQuality out;
  out.first_picture = picture(group, 0);
  const auto read = [](const Tensor& x) {
    const std::vector<float> host = x.to_host();
    return std::vector<double>(host.begin(), host.end());
  };
  const auto mean = [](const std::vector<double>& v) {
    double sum = 0;
    for (const double x : v) sum += x;
    return sum / static_cast<double>(v.size());
  };
  out.each = read(value.loss);
  out.loss = mean(out.each);
  for (const auto& [name, x] : value.terms) {
    out.each_terms[name] = read(x);
    out.terms[name] = mean(out.each_terms[name]);
  }
  return out;
}

}  // namespace vkflux
