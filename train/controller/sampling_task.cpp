#include "train/controller/sampling_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "model/sampler/step_noise.h"
#include "train/data/dataset.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

enum Stream : uint32_t { kPictures = 41, kGroups = 42 };

}  // namespace

SamplingTask::SamplingTask(Backbone& backbone, const ModelInfo& model, const LatentCodec* codec,
                           Condition prompts, std::optional<Condition> empty, const QualityLoss& quality,
                           const SamplingTaskOptions& options)
    : backbone_(backbone),
      geometry_(model.layout.geometry),
      codec_(codec),
      prompts_(std::move(prompts)),
      empty_(std::move(empty)),
      quality_(quality),
      options_(options),
      setup_(sampling_setup(model, options.sampling)) {
  if (options_.images < 1 || options_.seeds < 1)
    throw Error(ErrorCode::invalid_argument,
                "training needs at least one picture a plan and one seed a prompt");
  if (quality_.needs_images() && !codec_)
    throw Error(ErrorCode::invalid_argument, "a reward on images needs the latent codec");
  const SamplingOptions& o = setup_.options;
  for (size_t i = 0; i + 1 < o.levels.size(); ++i)
    inputs_.push_back({o.levels[i], static_cast<double>(o.cfg), o.width, o.height});
  if (inputs_.empty()) throw Error(ErrorCode::invalid_argument, "training needs at least one sampling step");
  order_ = epoch_order(static_cast<size_t>(prompts_.batch() * options_.seeds), options_.seed, kPictures, 0);
  options_.images = std::min(options_.images, pictures());
  groups_ = (pictures() + options_.images - 1) / options_.images;
}

int64_t SamplingTask::picture(int64_t group, int64_t b) const {
  return static_cast<int64_t>(order_[static_cast<size_t>((group * options_.images + b) % pictures())]);
}

SamplingTask::Result SamplingTask::sample(int64_t group, const std::vector<RoutePlan>& plans) {
  std::vector<int32_t> ids;
  std::vector<uint64_t> seeds;
  for (int64_t b = 0; b < options_.images; ++b) {
    ids.push_back(static_cast<int32_t>(picture(group, b) % prompts_.batch()));
    seeds.push_back(options_.seed + static_cast<uint64_t>(picture(group, b)));
  }
  std::optional<Condition> negative;
  if (setup_.options.cfg != 1 && empty_) negative = empty_->repeat(options_.images);
  Device& device = prompts_.parts().front().second.device();
  const Tensor noise = initial_noise(device, seeds, setup_.latent, options_.noise);
  SamplingOptions o = setup_.options;
  o.noise =
      [draw = step_noise(device, seeds, setup_.latent, options_.noise, static_cast<int64_t>(inputs_.size())),
       this](int64_t step) { return geometry_.pack(draw(step)); };
  SamplingRun run(backbone_, prompts_.pick(ids), negative, geometry_.pack(noise), o);
  refusals_.clear();
  for (size_t step = 0; !run.finished(); ++step) {
    check_interrupted("playing a plan");
    run.step(plans.empty() ? RoutePlan() : plans[step]);
    for (const Served& s : run.attention().served()) {
      if (!s.refusal.empty() && refusals_.size() < 8) refusals_.push_back(s.refusal);
    }
  }
  run.check_finite();
  Result out;
  out.latents = geometry_.unpack(run.x(), setup_.latent[1], setup_.latent[2]);
  if (!quality_.needs_images()) return out;
  std::vector<Tensor> images;
  for (int64_t b = 0; b < options_.images; ++b)
    images.push_back(codec_->decode(op::narrow(out.latents, 0, b, 1)));
  out.images = op::concat(images, 0);
  return out;
}

SamplingTask::Result SamplingTask::teacher(int64_t group) {
  for (const Cached& c : cache_) {
    if (c.group == group) return c.result;
  }
  const Result r = sample(group, {});
  const auto bytes = [](const Result& x) { return x.latents.bytes() + (x.images ? x.images.bytes() : 0); };
  cache_.push_back({group, r});
  cached_bytes_ += bytes(r);
  while (cached_bytes_ > options_.cache_bytes && cache_.size() > 1) {
    cached_bytes_ -= bytes(cache_.front().result);
    cache_.pop_front();
  }
  return r;
}

PlayedQuality SamplingTask::play(int64_t iteration, const std::vector<RouteDecision>& decisions) {
  const auto order = epoch_order(static_cast<size_t>(groups_), options_.seed, kGroups,
                                 static_cast<uint32_t>(iteration / groups_));
  return play_group(static_cast<int64_t>(order[static_cast<size_t>(iteration % groups_)]), decisions);
}

PlayedQuality SamplingTask::play_group(int64_t group, const std::vector<RouteDecision>& decisions) {
  if (decisions.size() != inputs_.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("decisions for {} of {} steps", decisions.size(), inputs_.size()));
  }
  std::vector<RoutePlan> plans;
  for (const RouteDecision& d : decisions) plans.push_back(route_plan(d, backbone_.layout()));
  const Result full = teacher(group), routed = sample(group, plans);
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
