// Distiller::save and Distiller::load: everything that an exact continuation needs.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "train/distill/distiller.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kOrigin = "metadata \"ttr\"";

std::string moment_name(int layer, const char* moment, const std::string& param) {
  return fmt::format("optimizer.{}.{}.{}", layer_key(layer), moment, param);
}

io::TensorData host_copy(const std::string& name, const Tensor& t) {
  return io::tensor_data(name, {t.shape().begin(), t.shape().end()}, t.to_host());
}

/// Values that are read and checked now and copied to their tensors when nothing can fail any more.
class Pending {
 public:
  explicit Pending(const io::SafetensorsFile& file) : file_(file) {}
  void take(const std::string& name, const Tensor& to) {
    std::vector<float> values = file_.read_f32(name);
    if (static_cast<int64_t>(values.size()) != to.numel()) {
      throw Error(ErrorCode::format,
                  fmt::format("{} has {} values, {} are needed", name, values.size(), to.numel()));
    }
    for (float x : values) {
      if (!std::isfinite(x)) throw Error(ErrorCode::format, fmt::format("{} isn't finite", name));
    }
    values_.emplace_back(to, std::move(values));
  }
  void apply() const {
    for (const auto& [tensor, values] : values_) tensor.copy_from_host(std::span<const float>(values));
  }

 private:
  const io::SafetensorsFile& file_;
  std::vector<std::pair<Tensor, std::vector<float>>> values_;
};

int64_t counter(const io::Json& object, const char* key) {
  const auto n = io::get<int64_t>(object, key, kOrigin);
  if (n < 0) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", kOrigin, key, n));
  return n;
}

void same(const char* what, int64_t file, int64_t run) {
  if (file == run) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("the checkpoint's students have another shape: {} is {} in the file and {} in this "
                          "run; use that value, or another --out folder",
                          what, file, run));
}

/// What a run may state anew without being at odds with its checkpoint.
bool belongs_to_run(const std::string& field) {
  return field == "steps" || field == "comet_log_every" || field == "cfg_scale" ||
         field == "min_swap_layers" || field == "max_swap_layers" || field == "learning_rate";
}

}  // namespace

void Distiller::save(std::vector<io::TensorData>& tensors, std::map<std::string, std::string>& metadata,
                     bool with_replay) const {
  Students described = students_;
  io::Json& f = described.fields;
  f.update(options_.settings.to_json());
  const DistillTotals t = totals();
  f["training_mode"] = training();
  f["loss_log_var_huber"] = t.log_var_huber;
  f["loss_log_var_cosine"] = t.log_var_cosine;
  io::Json steps = io::Json::object();
  for (const auto& [index, layer] : layers_) steps[layer_key(index)] = layer.trainer->steps();
  f["distiller"] = {{"updates_done", done_},
                    {"updates_total", options_.settings.steps},
                    {"seed", options_.seed},
                    {"schedule", options_.schedule == LayerSchedule::random ? "random" : "round-robin"},
                    {"optimizer_steps", std::move(steps)},
                    {"loss_weight_steps", weights_.steps()},
                    {"run_ema", ema_.to_json()},
                    {"metrics", metrics_.to_json()}};
  for (const auto& [index, layer] : layers_) {
    AdamWState& state = layer.trainer->state();
    const std::vector<std::string>& names = layer.trainer->names();
    for (size_t i = 0; i < names.size(); ++i) {
      tensors.push_back(host_copy(moment_name(index, "exp_avg", names[i]), state.m[i]));
      tensors.push_back(host_copy(moment_name(index, "exp_avg_sq", names[i]), state.v[i]));
    }
  }
  AdamWState& w = const_cast<LossWeights&>(weights_).state();
  tensors.push_back(host_copy("optimizer.loss_weights.param", w.param.flat()));
  tensors.push_back(host_copy("optimizer.loss_weights.exp_avg", w.m.flat()));
  tensors.push_back(host_copy("optimizer.loss_weights.exp_avg_sq", w.v.flat()));
  if (with_replay) f["distiller"]["replay"] = replay_.save(tensors);
  append_students(described, io::FileDType::f32, tensors, metadata);
}

void Distiller::merge_settings(const io::Json& fields) {
  const io::Json mine = options_.settings.to_json();
  io::Json wanted = io::Json::object();
  for (const auto& [key, value] : mine.items()) {
    if (!fields.contains(key) || belongs_to_run(key) || fields[key] == value) continue;
    wanted[key] = fields[key];
    spdlog::warn("{}: the checkpoint's {} is used instead of {}", key, fields[key].dump(), value.dump());
  }
  options_.settings.merge(wanted, kOrigin);
}

void Distiller::load(const std::string& path) {
  const ErrorContext context(path);
  const Students read = load_students(device_, path, students_.model);
  same("head_dim", read.config.head_dim, students_.config.head_dim);
  same("feature_dim", read.config.feature_dim, students_.config.feature_dim);
  same("the feature networks' width", read.config.width(), students_.config.width());
  same("the feature networks' number of layers", read.config.layers, students_.config.layers);
  same("the number of students", static_cast<int64_t>(read.layers.size()),
       static_cast<int64_t>(layers_.size()));
  for (const auto& [index, student] : read.layers) {
    if (!layers_.count(index)) same("the first student", index, layers_.begin()->first);
  }
  const io::SafetensorsFile file(path);
  const auto state = io::get<io::Json>(read.fields, "distiller", kOrigin);
  Pending pending(file);
  std::map<int, std::array<int64_t, StudentTrainer::kGroups>> steps;
  const auto all_steps = io::get<io::Json>(state, "optimizer_steps", kOrigin);
  for (const auto& [index, layer] : layers_) {
    const std::vector<std::string>& names = layer.trainer->names();
    for (size_t i = 0; i < names.size(); ++i) {
      pending.take(fmt::format("layers.{}.{}", layer_key(index), names[i]), layer.trainer->state().param[i]);
      pending.take(moment_name(index, "exp_avg", names[i]), layer.trainer->state().m[i]);
      pending.take(moment_name(index, "exp_avg_sq", names[i]), layer.trainer->state().v[i]);
    }
    steps[index] =
        io::get<std::array<int64_t, StudentTrainer::kGroups>>(all_steps, layer_key(index), kOrigin);
    for (int64_t n : steps[index]) {
      if (n < 0) throw Error(ErrorCode::format, fmt::format("{} optimiser steps", n));
    }
  }
  pending.take("optimizer.loss_weights.param", weights_.state().param.flat());
  pending.take("optimizer.loss_weights.exp_avg", weights_.state().m.flat());
  pending.take("optimizer.loss_weights.exp_avg_sq", weights_.state().v.flat());
  RunEma ema;
  ema.restore(io::get<io::Json>(state, "run_ema", kOrigin));
  DistillMetrics metrics;
  metrics.from_json(io::get<io::Json>(state, "metrics", kOrigin));
  for (const auto& [index, values] : metrics.latest()) {
    if (!layers_.count(index)) {
      throw Error(ErrorCode::format, fmt::format("metrics of layer {}, which has no student", index));
    }
  }
  const int64_t done = counter(state, "updates_done"), weight_steps = counter(state, "loss_weight_steps");
  const auto seed = io::get<uint64_t>(state, "seed", kOrigin);
  const auto schedule = io::get<std::string>(state, "schedule", kOrigin);
  DistillOptions merged = options_;
  std::swap(merged, options_);
  ReplayBuffer replay = replay_;
  try {
    options_ = merged;
    merge_settings(read.fields);
    replay = ReplayBuffer(options_.settings.replay_buffer_size, options_.settings.replay_max_bytes);
    if (state.contains("replay")) replay.restore(file, state["replay"]);
    for (int layer : replay.layers()) {
      const ReplaySample& s = replay.at(layer, 0);
      if (!layers_.count(layer) || s.q_sub.shape.back() != students_.config.head_dim) {
        throw Error(ErrorCode::format, fmt::format("replay samples of layer {} don't fit this model", layer));
      }
    }
  } catch (...) {
    options_ = merged;
    throw;
  }
  // Nothing fails from here on.
  if (seed != options_.seed) {
    spdlog::warn("seed: the checkpoint's {} is used instead of {}", seed, options_.seed);
  }
  options_.seed = seed;
  options_.schedule = schedule == "random" ? LayerSchedule::random : LayerSchedule::round_robin;
  pending.apply();
  weights_.set_steps(weight_steps);
  for (auto& [index, layer] : layers_) {
    layer.trainer->set_steps(steps.at(index));
    layer.trainer->options() = optimizer();
    layer.student->readiness = read.layers.at(index)->readiness;
    layer.student->last_loss = read.layers.at(index)->last_loss;
  }
  students_.fields = read.fields;
  replay_ = std::move(replay);
  ema_ = std::move(ema);
  metrics_ = std::move(metrics);
  done_ = done;
  apply_sizes();
  set_total_updates(options_.settings.steps);
}

}  // namespace vkflux
