// Distiller::save and Distiller::load: everything that an exact continuation needs.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cmath>
#include <utility>

#include "autograd/ops.h"
#include "train/checkpoint.h"
#include "train/distill/distiller.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kOrigin = "metadata \"ttr\"";

/// The moments of a layer's parameters; the parameters themselves are written with the students.
StateNames state_names(const std::string& layer) {
  const std::string key = layer_key(layer);
  return {{}, fmt::format("optimizer.{}.exp_avg.", key), fmt::format("optimizer.{}.exp_avg_sq.", key), {}};
}

/// Calls fn(name, tensor) for the state of the loss weights, which are few enough to be one tensor each.
template <class F>
void each_loss_weight(const Optimiser& o, const F& fn) {
  fn("optimizer.loss_weights.param", o.param().flat());
  fn("optimizer.loss_weights.exp_avg", o.m().flat());
  fn("optimizer.loss_weights.exp_avg_sq", o.v().flat());
}

int64_t counter(const io::Json& object, const char* key) {
  const auto n = io::get<int64_t>(object, key, kOrigin);
  if (n < 0) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", kOrigin, key, n));
  return n;
}

void same(const char* what, int64_t file, int64_t run) {
  expect_same_setting(what, std::to_string(file), std::to_string(run));
}

/// Settings that a continued run may state anew.
bool belongs_to_run(const std::string& field) {
  return field == "steps" || field == "comet_log_every" || field == "cfg_scale" ||
         field == "min_swap_layers" || field == "max_swap_layers";
}

DistillSettings merged(const DistillSettings& run, const io::Json& file, const std::set<std::string>& mine) {
  io::Json taken = io::Json::object();
  const io::Json own = run.to_json();
  for (const auto& [key, value] : own.items()) {
    if (!file.contains(key) || belongs_to_run(key) || mine.count(key) || file[key] == value) continue;
    taken[key] = file[key];
    spdlog::warn("{}: the checkpoint's {} is used instead of {}", key, file[key].dump(), value.dump());
  }
  DistillSettings out = run;
  out.merge(taken, kOrigin);
  return out;
}

}  // namespace

/// A checkpoint, read and checked.
struct Distiller::Loaded {
  PendingValues pending;
  DistillOptions options;
  ReplayBuffer replay{1, 0};
  RunEma ema;
  DistillMetrics metrics;
  Students students;
  ByLayer<std::array<int64_t, StudentTrainer::kGroups>> steps;
  int64_t done = 0, weight_steps = 0;
};

void Distiller::check_same(const Students& s) const {
  same("head_dim", s.config.head_dim, students_.config.head_dim);
  same("feature_dim", s.config.feature_dim, students_.config.feature_dim);
  same("the feature networks' width", s.config.width(), students_.config.width());
  same("the feature networks' number of layers", s.config.layers, students_.config.layers);
  same("the number of students", static_cast<int64_t>(s.layers.size()), static_cast<int64_t>(layers_.size()));
  for (auto a = s.layers.begin(), b = students_.layers.begin(); a != s.layers.end(); ++a, ++b) {
    expect_same_setting("a student's layer", a->first, b->first);
  }
}

void Distiller::adopt(const Students& students) {
  check_same(students);
  for (auto& [name, layer] : layers_) {
    const Student& from = *students.layers.at(name);
    std::vector<Param> params = parameters(*from.layer);
    for (size_t i = 0; i < params.size(); ++i) {
      const Tensor& to = layer.trainer->optimiser().param()[i];
      to.fill_zero();
      op::accumulate(to, *params[i].tensor);
    }
    layer.student->readiness = from.readiness;
    layer.student->last_loss = from.last_loss;
  }
}

Students Distiller::described() const {
  Students out = students_;
  out.fields.update(options_.settings.to_json());
  out.fields["training_mode"] = training();
  out.fields["loss_log_var_huber"] = weights_.huber().item();
  out.fields["loss_log_var_cosine"] = weights_.cosine().item();
  return out;
}

io::Json Distiller::state() const {
  io::Json steps = io::Json::object();
  for (const auto& [name, layer] : layers_) steps[layer_key(name)] = layer.trainer->steps();
  return {{"updates_done", done_},
          {"updates_total", options_.settings.steps},
          {"seed", options_.seed},
          {"schedule", options_.schedule == LayerSchedule::random ? "random" : "round-robin"},
          {"optimizer_steps", std::move(steps)},
          {"loss_weight_steps", weights_.optimiser().steps()},
          {"run_ema", ema_.to_json()},
          {"metrics", metrics_.to_json()}};
}

void Distiller::save(std::vector<io::TensorData>& tensors, std::map<std::string, std::string>& metadata,
                     bool with_replay) const {
  if (!issued_.empty() || !fresh_.empty())
    throw Error(ErrorCode::internal, "a distiller is saved between steps: after end_step()");
  for (const auto& [name, layer] : layers_) {
    const ErrorContext context(name);
    expect_finite(layer.trainer->optimiser());  // what append_students() writes
    append_state(layer.trainer->optimiser(), state_names(name), tensors);
  }
  each_loss_weight(weights_.optimiser(),
                   [&](const std::string& name, const Tensor& t) { tensors.push_back(host_copy(name, t)); });
  Students all = described();
  io::Json& mine = all.fields["distiller"] = state();
  if (with_replay) mine["replay"] = replay_.save(tensors);
  append_students(all, io::FileDType::f32, tensors, metadata);
}

Distiller::Loaded Distiller::read(const std::string& path, const std::set<std::string>& mine) const {
  const io::SafetensorsFile file(path);
  Loaded in;
  in.students = load_students(device_, path, students_.model);
  check_same(in.students);
  const io::Json& fields = in.students.fields;
  const auto state = io::get<io::Json>(fields, "distiller", kOrigin);
  const auto steps = io::get<io::Json>(state, "optimizer_steps", kOrigin);
  for (const auto& [name, layer] : layers_) {
    StateNames names = state_names(name);
    names.param = fmt::format("layers.{}.", layer_key(name));
    in.pending.take(file, layer.trainer->optimiser(), names);
    auto& own = in.steps[name];
    own = io::get<std::array<int64_t, StudentTrainer::kGroups>>(steps, layer_key(name), kOrigin);
    for (int64_t n : own) {
      if (n < 0) throw Error(ErrorCode::format, fmt::format("{} optimiser steps", n));
    }
  }
  each_loss_weight(weights_.optimiser(),
                   [&](const std::string& name, const Tensor& t) { in.pending.take(file, name, t); });
  in.ema.restore(io::get<io::Json>(state, "run_ema", kOrigin));
  in.metrics.from_json(io::get<io::Json>(state, "metrics", kOrigin));
  in.done = counter(state, "updates_done");
  in.weight_steps = counter(state, "loss_weight_steps");
  in.options = options_;
  in.options.settings = merged(options_.settings, fields, mine);
  const auto seed = io::get<uint64_t>(state, "seed", kOrigin);
  const auto schedule = io::get<std::string>(state, "schedule", kOrigin);
  if (!mine.count("seed")) in.options.seed = seed;
  if (!mine.count("schedule"))
    in.options.schedule = schedule == "random" ? LayerSchedule::random : LayerSchedule::round_robin;
  in.replay = ReplayBuffer(in.options.settings.replay_buffer_size, in.options.settings.replay_max_bytes);
  if (state.contains("replay")) in.replay.restore(file, state["replay"]);
  return in;
}

void Distiller::load(const std::string& path, const std::set<std::string>& mine) {
  const ErrorContext context(path);
  Loaded in = read(path, mine);
  for (const auto& [name, values] : in.metrics.latest()) {
    if (!layers_.count(name)) throw Error(ErrorCode::format, fmt::format("metrics of layer {}", name));
  }
  for (const std::string& layer : in.replay.layers()) {
    for (size_t i = 0; i < in.replay.size(layer); ++i) {
      if (layers_.count(layer) && in.replay.at(layer, i).q_sub.shape.back() == students_.config.head_dim) {
        continue;
      }
      throw Error(ErrorCode::format, fmt::format("replay samples of layer {} don't fit this model", layer));
    }
  }
  // Nothing fails from here on.
  if (in.options.seed != options_.seed) {
    spdlog::warn("seed: the checkpoint's {} is used instead of {}", in.options.seed, options_.seed);
  }
  const int64_t total = options_.settings.steps;
  options_ = in.options;
  in.pending.apply();
  weights_.optimiser().set_steps(in.weight_steps);
  for (auto& [name, layer] : layers_) {
    layer.trainer->set_steps(in.steps.at(name));
    layer.trainer->options() = optimizer();
    layer.student->readiness = in.students.layers.at(name)->readiness;
    layer.student->last_loss = in.students.layers.at(name)->last_loss;
  }
  replay_ = std::move(in.replay);
  ema_ = std::move(in.ema);
  metrics_ = std::move(in.metrics);
  done_ = in.done;
  issued_.clear();
  fresh_.clear();
  last_.reset();
  apply_sizes();
  set_total_updates(total);
}

}  // namespace vkflux
