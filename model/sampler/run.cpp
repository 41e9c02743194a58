#include "model/sampler/run.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "model/sampler/mix.h"
#include "model/sampler/schedule.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kTableUnit = 64;  // floats: the least alignment of a tensor, and room for a kind's numbers

bool replay_allowed() {
  return environment("VKFLUX_REPLAY") != "0";
}

}  // namespace

SamplingRun::SamplingRun(Backbone& model, const Condition& positive, const std::optional<Condition>& negative,
                         Tensor x, SamplingOptions options)
    : model_(model),
      x_(std::move(x)),
      options_(std::move(options)),
      solver_(options_.solver, options_.levels, options_.resumed ? options_.resumed->begun : options_.start),
      attention_(x_.device(), model.attention(), options_.taps),
      step_(options_.start) {
  if (options_.start < 0 || options_.start >= steps()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("start at step {} of {}", options_.start, steps()));
  }
  if (options_.cfg != 1 && !negative) {
    throw Error(ErrorCode::invalid_argument, "guidance by a second pass (cfg) needs a negative condition");
  }
  if (solver_.stochastic() && !options_.noise)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the sampler {} needs fresh noise in its steps", name(options_.solver)));
  if (options_.resumed) solver_.restore(*options_.resumed);
  positive_ = inputs(positive);
  if (negative && options_.cfg != 1) {
    negative_ = inputs(*negative);
    negative_.guidance = positive_.guidance;
  }
  make_step_table();
  if (options_.replay && replay_allowed()) replay_ = std::make_unique<Replay>(model_);
}

PassInputs SamplingRun::inputs(const Condition& condition) const {
  PassInputs in;
  in.x = x_;
  in.condition = condition;
  options_.pictures.visit([&](const std::string& name, const Tensor& x) { in.condition.set(name, x); });
  in.tokens.references = options_.references;
  in.tokens.wrap_rows = options_.wrap_rows;
  in.tokens.wrap_columns = options_.wrap_columns;
  in.tokens.rows = options_.rows;
  in.tokens.columns = options_.columns;
  if (model_.layout().guidance) in.guidance = Tensor::full(x_.device(), {x_.dim(0)}, options_.guidance);
  model_.prepare(in, options_.ids);
  return in;
}

StepInfo SamplingRun::info(int64_t step) const {
  return {static_cast<int>(step),
          static_cast<int>(steps()),
          static_cast<float>(options_.levels[static_cast<size_t>(step)]),
          options_.guidance,
          options_.cfg,
          options_.width,
          options_.height,
          {}};
}

// What varies from step to step is on the device before the first one: a step uploads nothing.
void SamplingRun::make_step_table() {
  const int64_t batch = x_.dim(0), unit = kTableUnit;
  for (const AttentionKindRow& row : kAttentionKinds) {
    const auto n = static_cast<int64_t>(attention_.step_numbers(row.kind, info(0)).size());
    if (n > unit)
      throw Error(ErrorCode::internal, fmt::format("{} attention reads {} numbers a step", row.name, n));
    if (n > 0) numbers_.push_back({row.kind, n});
  }
  const int64_t level_at = unit * static_cast<int64_t>(numbers_.size());
  const int64_t row = level_at + (batch + unit - 1) / unit * unit;
  const int64_t rows = steps() + 1;
  std::vector<float> host(static_cast<size_t>(rows * row));
  for (int64_t i = 0; i < rows; ++i) {
    const StepInfo step = info(i);
    float* to = host.data() + i * row;
    for (size_t k = 0; k < numbers_.size(); ++k) {
      const std::vector<float> values = attention_.step_numbers(numbers_[k].kind, step);
      std::copy(values.begin(), values.end(), to + static_cast<int64_t>(k) * unit);
    }
    const auto at = static_cast<size_t>(i);
    std::fill_n(to + level_at, batch,
                options_.times.empty() ? step.sigma : static_cast<float>(options_.times.at(at)));
  }
  step_table_ = Tensor::from(x_.device(), std::span<const float>(host), {rows, row});
}

void SamplingRun::feed(PassInputs& in, const Tensor& x, int64_t step) {
  const int64_t batch = x_.dim(0);
  const Tensor row = step_table_.slice(0, step, 1);
  in.x = x;
  in.step = info(step);
  int64_t at = 0;
  for (const Numbers& n : numbers_) {
    in.step.numbers[static_cast<size_t>(n.kind)] = row.slice(1, at, n.count);
    at += kTableUnit;
  }
  in.t = row.slice(1, at, batch).view({batch});
}

Tensor SamplingRun::predict(PassInputs& in, const Tensor& x, int64_t step) {
  feed(in, x, step);
  in.attention = &attention_;
  return replay_ ? replay_->forward(in) : model_.forward(in);
}

Tensor SamplingRun::guided(const Tensor& x, int64_t step) {
  const Tensor positive = predict(positive_, x, step);
  return options_.cfg == 1 ? positive : guide(positive, predict(negative_, x, step), options_.cfg);
}

Tensor SamplingRun::with_kept(const Tensor& x, double level) const {
  if (!options_.kept) return x;
  const KeptParts& k = *options_.kept;
  return op::add(op::mul(op::affine(k.repaint, -1, 1), noised(k.clean, k.noise, level)),
                 op::mul(k.repaint, x));
}

void SamplingRun::step(const RoutePlan& plan) {
  if (finished()) throw Error(ErrorCode::invalid_argument, "the denoising run is over");
  const ProfileScope scope(x_.device().profiler(), "step", step_);
  output_ = attention_.step(plan, [&] {
    return solver_.direction(step_, x_, [&](const Tensor& x, int64_t i) { return guided(x, i); });
  });
  x_ = with_kept(solver_.advance(step_, x_, output_, options_.noise),
                 options_.levels[static_cast<size_t>(step_) + 1]);
  sums_.push_back(op::mean_all(op::unary(x_, op::Unary::abs)));
  ++step_;
}

std::string SamplingRun::first_not_finite(const Tensor& x, int64_t step) {
  std::string where;
  for (PassInputs* in : {&positive_, &negative_}) {
    if (!where.empty() || (in == &negative_ && options_.cfg == 1)) continue;
    feed(*in, x, step);
    in->attention = nullptr;
    where = vkflux::first_not_finite([&](Trace* trace) { return model_.forward(*in, trace); });
  }
  return where;
}

void SamplingRun::check_finite() const {
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
  if (const uint64_t n = x_.device().saturated().take()) {
    spdlog::warn(
        "{} values were beyond the range of f16 and became its largest number, 65504; with bf16 or f32 in "
        "place of f16 none is",
        n);
  }
}

}  // namespace vkflux
