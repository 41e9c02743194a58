#include "model/sampler/denoise.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/sampler/euler.h"
#include "model/sampler/schedule.h"
#include "vk/error.h"

namespace vkflux {

FluxDenoiser::FluxDenoiser(Flux1& model, FluxCondition positive, std::optional<FluxCondition> negative,
                           Tensor x, DenoiseOptions options)
    : model_(model),
      positive_(std::move(positive)),
      negative_(std::move(negative)),
      x_(std::move(x)),
      options_(std::move(options)),
      step_(options_.start) {
  check_levels(options_.levels);
  if (options_.start < 0 || options_.start >= steps()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("start at step {} of {}", options_.start, steps()));
  }
  if (options_.cfg != 1 && !negative_) {
    throw Error(ErrorCode::invalid_argument, "guidance by a second pass (cfg) needs a negative condition");
  }
  if (!options_.plans.empty() && static_cast<int64_t>(options_.plans.size()) != steps()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} route plans for {} steps", options_.plans.size(), steps()));
  }
  const int64_t batch = x_.dim(0), text = positive_.txt.dim(1);
  const Flux1Config& c = model_.config();
  const bool plain = options_.ids.empty();
  rope_ = rope_table(x_.device(), plain ? flux1_ids(text, options_.rows, options_.columns) : options_.ids,
                     plain ? 1 : batch, c.axes_dim, c.theta);
}

Tensor FluxDenoiser::predict(const FluxCondition& condition, double level) const {
  const int64_t batch = x_.dim(0);
  Flux1Inputs in;
  in.img = x_;
  in.txt = condition.txt;
  in.y = condition.y;
  in.t = Tensor::full(x_.device(), {batch}, static_cast<float>(level));
  if (model_.config().guidance) in.guidance = Tensor::full(x_.device(), {batch}, options_.guidance);
  in.rope = rope_;
  in.tokens.rows = options_.rows;
  in.tokens.columns = options_.columns;
  in.step = {static_cast<int>(step_),
             static_cast<int>(steps()),
             static_cast<float>(level),
             options_.guidance,
             options_.cfg,
             options_.width,
             options_.height};
  return model_.forward(in);
}

void FluxDenoiser::step() {
  if (finished()) throw Error(ErrorCode::invalid_argument, "the denoising run is over");
  const auto i = static_cast<size_t>(step_);
  const double from = options_.levels[i], to = options_.levels[i + 1];
  AttentionBank& bank = model_.attention();
  if (!options_.plans.empty()) bank.route(options_.plans[i]);
  do {
    velocity_ = predict(positive_, from);
    if (options_.cfg != 1) velocity_ = guide(velocity_, predict(*negative_, from), options_.cfg);
  } while (!bank.settle());
  x_ = euler_step(x_, velocity_, from, to);
  sums_.push_back(op::mean_all(op::unary(x_, op::Unary::abs)));
  ++step_;
}

void FluxDenoiser::check_finite() const {
  for (size_t i = 0; i < sums_.size(); ++i) {
    if (std::isfinite(sums_[i].item())) continue;
    throw Error(ErrorCode::verification_failed,
                fmt::format("the latent isn't finite after step {} of {}: the weights are damaged, or their "
                            "16-bit form overflows (load them as f32 to tell)",
                            options_.start + static_cast<int64_t>(i) + 1, steps()));
  }
}

}  // namespace vkflux
