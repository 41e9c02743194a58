#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "train/checkpoint.h"
#include "train/metric_values.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kFormat = "vkflux-train-1";

StateNames state_names() {
  return {"param.", "m.", "v.", "ema."};
}

}  // namespace

Trainer::Trainer(Device& device, TrainOptions options) : device_(device), options_(options) {
  inputs_.set("steps", options_.steps);
  inputs_.set("batch", options_.batch);
  inputs_.set("accumulate", options_.accumulate);
  inputs_.set("lr", options_.lr);
  inputs_.set("final-lr", options_.final_lr_ratio);
  inputs_.set("warmup", options_.warmup);
  inputs_.set("betas", std::vector<double>{options_.beta1, options_.beta2});
  inputs_.set("weight-decay", options_.weight_decay);
  inputs_.set("clip", options_.clip);
  inputs_.set("ema", options_.ema);
  inputs_.set("seed", options_.seed);
}

float Trainer::learning_rate(int64_t step) const {
  const double s = static_cast<double>(step), warm = static_cast<double>(options_.warmup);
  if (s < warm) return static_cast<float>(options_.lr * (s + 1) / warm);
  const double t = (s - warm) / std::max(1.0, static_cast<double>(options_.steps) - warm);
  const double low = options_.final_lr_ratio;
  return static_cast<float>(options_.lr *
                            (low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * std::min(t, 1.0)))));
}

void Trainer::adopt(const std::vector<Trainable>& parameters) {
  optimiser_ = std::make_unique<Optimiser>(device_, parameters, OptimiserLayout{options_.ema > 0, true, {}});
}

void Trainer::step() {
  const int64_t step = steps_done();
  const ProfileScope whole(device_.profiler(), "step", step);
  const float share = 1.0f / static_cast<float>(options_.accumulate);
  std::map<std::string, Tensor> report;
  const Tensor norm = gradients({optimiser_.get()}, options_.accumulate, [&](int64_t micro) {
    std::map<std::string, Tensor> extra;
    const Tensor value = loss(step, micro, extra);
    const auto untaped = Tape::pause();
    extra["loss"] = value;
    for (auto& [name, x] : extra) {
      const Tensor part = op::affine(x, share);
      report[name] = report.count(name) ? op::add(report[name], part) : part;
    }
    return Seeded{value, Tensor::full(device_, value.shape(), share)};
  });
  const ProfileScope part(device_.profiler(), "optimiser");
  report["grad_norm"] = norm;
  const AdamWOptions adam{learning_rate(step), options_.beta1, options_.beta2, options_.eps,
                          options_.weight_decay};
  optimiser_->apply(adam, gradient_scale(norm, static_cast<double>(options_.clip)));
  const float s = static_cast<float>(step);
  optimiser_->update_average(std::min(options_.ema, (1 + s) / (10 + s)));
  pending_.emplace_back(steps_done(), std::move(report));
  if (should_log(steps_done(), options_.log_every, options_.steps, false)) flush_metrics();
  device_.stream().submit();
}

// One readback for all steps since the last one.
void Trainer::flush_metrics() {
  std::vector<Tensor> values;
  for (const auto& [step, report] : pending_) {
    for (const auto& [name, x] : report) values.push_back(x.view({1}));
  }
  if (values.empty()) return;
  const std::vector<float> host = op::concat(values, 0).to_host();
  size_t at = 0;
  for (const auto& [step, report] : pending_) {
    latest_.clear();
    for (const auto& [name, x] : report) latest_.emplace_back(name, host[at++]);
    latest_.emplace_back("lr", learning_rate(step - 1));
    io::Json row = io::Json::object();
    for (const auto& [name, value] : latest_) row[name] = value;
    const Metrics metrics = prefixed_metrics("", row);
    for (const auto& sink : sinks_) sink->write(step, metrics);
    for (const auto& [name, value] : latest_) {
      if ((name == "loss" || name == "grad_norm") && !std::isfinite(value)) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("the {} became {} at step {}; lower --lr (now {}) or raise --warmup",
                                name == "loss" ? "loss" : "gradient", value, step, options_.lr));
      }
    }
  }
  pending_.clear();
  device_.kernels().save();
}

void Trainer::save(const std::string& path) {
  flush_metrics();
  std::vector<io::TensorData> tensors;
  append_state(*optimiser_, state_names(), tensors);
  std::map<std::string, std::string> metadata{{"format", kFormat}, {"step", std::to_string(steps_done())}};
  inputs_.write(metadata);
  io::write_safetensors(path, tensors, metadata);
}

void Trainer::load(const std::string& path) {
  const ErrorContext context(path);
  const io::SafetensorsFile file(path);
  if (metadata_of(file, "format") != kFormat)
    throw Error(ErrorCode::format, "this is no training checkpoint of vkflux");
  const int64_t step = counter_of(file, "step");
  inputs_.check(file);
  PendingValues values;
  values.take(file, *optimiser_, state_names());
  values.apply();
  optimiser_->set_steps(step);
  pending_.clear();
}

}  // namespace vkflux
