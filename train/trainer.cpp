#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "autograd/ops.h"
#include "model/io/safetensors.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kFormat = "vkflux-train-1";

std::vector<std::byte> bytes_of(const Tensor& t) {
  const std::vector<uint8_t> raw = t.to_host_bytes();
  const auto* p = reinterpret_cast<const std::byte*>(raw.data());
  return {p, p + raw.size()};
}

}  // namespace

uint32_t checksum(const std::vector<Trainable>& parameters) {
  std::string all;
  for (const Trainable& p : parameters) {
    const std::vector<uint8_t> bytes = p.tensor->to_host_bytes();
    all.append(bytes.begin(), bytes.end());
  }
  return crc32c(all);
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
  std::vector<std::pair<std::string, Shape>> layout;
  for (const Trainable& p : parameters) {
    layout.emplace_back(p.name, p.tensor->shape());
    names_.push_back(p.name);
  }
  trainables_ = parameters;
  const auto arena = [&] { return std::make_unique<Arena>(device_, layout, MemoryClass::weights); };
  state_ = {arena(), arena(), arena(), arena(), options_.ema > 0 ? arena() : nullptr};
  std::vector<uint8_t> mask(static_cast<size_t>(state_.param->flat().numel() / 64), 0);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& slot = (*state_.param)[i];
    op::accumulate(slot, *parameters[i].tensor);
    *parameters[i].tensor = slot;
    if (slot.rank() < 2) continue;
    const auto first = static_cast<size_t>(slot.offset() / 64),
               count = static_cast<size_t>((slot.numel() + 63) / 64);
    std::fill_n(mask.begin() + static_cast<ptrdiff_t>(first), count, uint8_t{1});
  }
  decay_mask_ = Tensor::from(device_, std::span<const uint8_t>(mask), {static_cast<int64_t>(mask.size())});
  if (state_.ema) op::accumulate(state_.ema->flat(), state_.param->flat());
}

void Trainer::step() {
  Profiler& profiler = device_.profiler();
  const ProfileScope whole(profiler, "step", step_);
  state_.grad->flat().fill_zero();
  std::map<std::string, Tensor> report;
  for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
    Tape tape;
    Grads grads;
    for (size_t i = 0; i < names_.size(); ++i) {
      tape.watch((*state_.param)[i]);
      grads.collect((*state_.param)[i], (*state_.grad)[i], micro == 0);
    }
    std::map<std::string, Tensor> extra;
    Tensor value;
    {
      const ProfileScope part(profiler, "forward");
      const auto scope = tape.record();
      value = loss(step_, micro, extra);
    }
    const ProfileScope part(profiler, "backward");
    const float share = 1.0f / static_cast<float>(options_.accumulate);
    tape.backward({{value, Tensor::full(device_, value.shape(), share)}}, grads);
    extra["loss"] = value;
    for (auto& [name, x] : extra) {
      const Tensor part = op::affine(x, share);
      report[name] = report.count(name) ? op::add(report[name], part) : part;
    }
  }
  const ProfileScope part(profiler, "optimiser");
  const Tensor norm = global_norm(state_.grad->flat());
  report["grad_norm"] = norm;
  const AdamWOptions adam{learning_rate(step_), options_.beta1, options_.beta2, options_.eps,
                          options_.weight_decay};
  adamw(state_.param->flat(), state_.grad->flat(), state_.m->flat(), state_.v->flat(), adam, step_ + 1,
        options_.clip > 0 ? clip_scale(norm, options_.clip) : Tensor(), decay_mask_);
  if (state_.ema) {
    const float s = static_cast<float>(step_);
    ema_update(state_.ema->flat(), state_.param->flat(), std::min(options_.ema, (1 + s) / (10 + s)));
  }
  ++step_;
  pending_.emplace_back(step_, std::move(report));
  if (step_ % options_.log_every == 0 || finished()) flush_metrics();
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
    for (const auto& sink : sinks_) sink->write(step, latest_);
    for (const auto& [name, value] : latest_) {
      if (name == "loss" && !std::isfinite(value)) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("the loss became {} at step {}; lower --lr (now {}) or raise --warmup", value,
                                step, options_.lr));
      }
    }
  }
  pending_.clear();
  device_.kernels().save();
}

void Trainer::save(const std::string& path) {
  flush_metrics();
  std::vector<io::TensorData> entries;
  const auto put = [&](const char* prefix, const Arena* arena) {
    if (!arena) return;
    for (size_t i = 0; i < names_.size(); ++i) {
      const Tensor& t = (*arena)[i];
      entries.push_back({std::string(prefix) + names_[i],
                         io::FileDType::f32,
                         {t.shape().begin(), t.shape().end()},
                         bytes_of(t)});
    }
  };
  put("param.", state_.param.get());
  put("m.", state_.m.get());
  put("v.", state_.v.get());
  put("ema.", state_.ema.get());
  io::write_safetensors(
      path, entries, {{"format", kFormat}, {"step", std::to_string(step_)}, {"fingerprint", fingerprint()}});
}

void Trainer::load(const std::string& path) {
  const ErrorContext context(path);
  const io::SafetensorsFile file(path);
  const auto metadata = [&](const char* key) {
    const auto it = file.metadata().find(key);
    return it == file.metadata().end() ? std::string() : it->second;
  };
  if (metadata("format") != kFormat)
    throw Error(ErrorCode::format, "this is no training checkpoint of vkflux");
  if (metadata("fingerprint") != fingerprint()) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format(
            "the checkpoint was made with other settings:\n  file: {}\n  run:  {}\nUse those settings, or "
            "another --out folder",
            metadata("fingerprint"), fingerprint()));
  }
  const std::string step = metadata("step");
  if (step.empty() || step.size() > 12 || !std::all_of(step.begin(), step.end(), ::isdigit)) {
    throw Error(ErrorCode::format, fmt::format("bad step '{}'", step));
  }
  // Everything is read and checked before anything is changed.
  std::vector<std::pair<const Tensor*, std::vector<float>>> values;
  const auto get = [&](const char* prefix, const Arena* arena) {
    if (!arena) return;
    for (size_t i = 0; i < names_.size(); ++i) {
      const Tensor& t = (*arena)[i];
      std::vector<float> data = file.read_f32(prefix + names_[i]);
      if (static_cast<int64_t>(data.size()) != t.numel()) {
        throw Error(ErrorCode::format, fmt::format("{}{} has {} values, {} are needed", prefix, names_[i],
                                                   data.size(), t.numel()));
      }
      values.emplace_back(&t, std::move(data));
    }
  };
  get("param.", state_.param.get());
  get("m.", state_.m.get());
  get("v.", state_.v.get());
  get("ema.", state_.ema.get());
  for (const auto& [tensor, data] : values) tensor->copy_from_host(std::span<const float>(data));
  step_ = std::stoll(step);
  pending_.clear();
}

void Trainer::with_ema(const std::function<void()>& fn) {
  struct Swap {
    const std::vector<Trainable>& list;
    std::vector<Tensor> saved;
    ~Swap() {
      for (size_t i = 0; i < saved.size(); ++i) *list[i].tensor = saved[i];
    }
  } swap{trainables_, {}};
  if (state_.ema) {
    for (size_t i = 0; i < trainables_.size(); ++i) {
      swap.saved.push_back(*trainables_[i].tensor);
      *trainables_[i].tensor = (*state_.ema)[i];
    }
  }
  fn();
}

}  // namespace vkflux
