#include "model/sampler/denoise.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/hkr/hkr.h"
#include "model/sampler/euler.h"
#include "model/sampler/schedule.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kTableUnit = 64;  // floats: the least alignment of a tensor, and a row of scalars

bool replay_allowed() {
  const char* env = std::getenv("VKFLUX_REPLAY");
  return !env || std::string_view(env) != "0";
}

}  // namespace

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
  if (c.guidance) guidance_ = Tensor::full(x_.device(), {batch}, options_.guidance);
  make_step_table();
  if (options_.replay && replay_allowed()) replay_ = std::make_unique<Flux1Replay>(model_);
}

// What varies from step to step is on the device before the first one: a step uploads nothing.
void FluxDenoiser::make_step_table() {
  const int64_t batch = x_.dim(0), unit = kTableUnit;
  const int64_t row = unit + (batch + unit - 1) / unit * unit;
  std::vector<float> host(static_cast<size_t>(steps() * row));
  for (int64_t i = 0; i < steps(); ++i) {
    const auto level = static_cast<float>(options_.levels[static_cast<size_t>(i)]);
    const std::vector<float> scalars = hkr_scalars(level, options_.cfg);
    float* to = host.data() + i * row;
    std::copy(scalars.begin(), scalars.end(), to);
    std::fill_n(to + unit, batch, level);
  }
  step_table_ = Tensor::from(x_.device(), std::span<const float>(host), {steps(), row});
}

Tensor FluxDenoiser::predict(const FluxCondition& condition, double level) {
  const int64_t batch = x_.dim(0);
  const Tensor row = step_table_.slice(0, step_, 1);
  Flux1Inputs in;
  in.img = x_;
  in.txt = condition.txt;
  in.y = condition.y;
  in.t = row.slice(1, kTableUnit, batch).view({batch});
  in.guidance = guidance_;
  in.rope = rope_;
  in.tokens.rows = options_.rows;
  in.tokens.columns = options_.columns;
  in.step = {static_cast<int>(step_),
             static_cast<int>(steps()),
             static_cast<float>(level),
             options_.guidance,
             options_.cfg,
             options_.width,
             options_.height,
             row.slice(1, 0, kTableUnit)};
  return replay_ ? replay_->forward(in) : model_.forward(in);
}

void FluxDenoiser::step() {
  if (finished()) throw Error(ErrorCode::invalid_argument, "the denoising run is over");
  const auto i = static_cast<size_t>(step_);
  const double from = options_.levels[i], to = options_.levels[i + 1];
  const ProfileScope scope(x_.device().profiler(), "step", step_);
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
  if (sums_.empty()) return;
  std::vector<Tensor> rows;
  for (const Tensor& s : sums_) rows.push_back(op::reshape(s, {1}));
  const std::vector<float> host = op::concat(rows, 0).to_host();
  for (size_t i = 0; i < host.size(); ++i) {
    if (std::isfinite(host[i])) continue;
    throw Error(ErrorCode::verification_failed,
                fmt::format("the latent isn't finite after step {} of {}: the weights are damaged, or their "
                            "16-bit form overflows (load them as f32 to tell)",
                            options_.start + static_cast<int64_t>(i) + 1, steps()));
  }
}

}  // namespace vkflux
