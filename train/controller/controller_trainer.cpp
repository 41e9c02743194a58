#include "train/controller/controller_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include "model/philox.h"
#include "train/checkpoint.h"
#include "train/metric_values.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint32_t kPlanStream = 0x504c414e;

uint64_t plan_seed(uint64_t seed, int64_t iteration, int64_t plan) {
  const PhiloxBlock b =
      philox4x32({static_cast<uint32_t>(iteration), static_cast<uint32_t>(plan), 0, kPlanStream},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{b[0]} << 32 | b[1];
}

}  // namespace

ControllerTrainer::ControllerTrainer(ControllerNet& net, const BackboneLayout& model,
                                     std::vector<uint8_t> eligible, RoutingTask& task,
                                     const ControllerTrainOptions& options)
    : net_(net),
      model_(model),
      task_(task),
      options_(options),
      policy_(net, std::move(eligible), options.policy) {
  if (options_.plans < 1 || options_.iterations < 1)
    throw Error(ErrorCode::invalid_argument, "training needs at least one iteration of one plan");
  if (!options_.sigma_aware && options_.plans > 1)
    throw Error(ErrorCode::invalid_argument, "one decision for the whole run is trained with one plan only");
  inputs_.set("plans", options_.plans);
  inputs_.set("whole-run", !options_.sigma_aware);
  inputs_.set("seed", options_.seed);
  inputs_.set("action-noise", options_.noise == ActionNoise::logistic ? "logistic" : "gumbel");
  const PolicyTrainOptions& p = options_.policy;
  inputs_.set("lr", p.lr);
  inputs_.set("weight-decay", p.weight_decay);
  inputs_.set("clip", p.clip);
  inputs_.set("target-ttr-ratio", p.reward.target_ttr_ratio);
  inputs_.set("lambda-eff", p.reward.lambda_eff);
  inputs_.set("lambda-entropy", p.reward.lambda_entropy);
  inputs_.set("baseline-floor", p.floor);
  inputs_.set("baseline-floor-on", p.floor_on == FloorOn::quality  ? "quality"
                                   : p.floor_on == FloorOn::reward ? "reward"
                                                                   : "off");
  inputs_.set("entropy-over-all", p.entropy_over_all);
  inputs_.set("entropy-gradient", p.entropy_gradient);
  inputs_.set("exact-efficiency", p.exact_efficiency);
  inputs_.set("embed-dim", net_.config().embed_dim);
  inputs_.set("hidden-dim", net_.config().hidden_dim);
  inputs_.set("layers with a student", policy_.eligible());
  std::vector<double> levels;
  for (const RouteInput& in : task_.inputs()) levels.push_back(in.sigma);
  inputs_.set("noise levels", levels);
  const RouteInput& in = task_.inputs().front();
  inputs_.set("cfg", in.cfg);
  inputs_.set("size", fmt::format("{}x{}", in.width, in.height));
}

Trajectory ControllerTrainer::draw(int64_t plan) const {
  const std::vector<RouteInput>& inputs = task_.inputs();
  const std::vector<uint8_t>& eligible = policy_.eligible();
  PolicyOptions policy;
  policy.noise = options_.noise;
  const uint64_t seed = plan_seed(options_.seed, step_, plan);
  const size_t drawn = options_.sigma_aware ? inputs.size() : 1;
  const std::vector<float> logits = net_.forward(std::span(inputs).first(drawn)).to_host();
  Trajectory t{inputs, {}};
  for (size_t n = 0; n < inputs.size(); ++n) {
    if (n >= drawn) {
      t.decisions.push_back(t.decisions.front());
      continue;
    }
    t.decisions.push_back(
        decide(std::span(logits).subspan(n * eligible.size(), eligible.size()), eligible, policy,
               [&](uint32_t layer) { return policy_uniform(seed, static_cast<uint32_t>(n), layer); }));
  }
  return t;
}

void ControllerTrainer::step() {
  std::vector<PlayedTrajectory> played;
  PlayedQuality quality;
  const double share = 1 / static_cast<double>(options_.plans);
  for (int64_t plan = 0; plan < options_.plans; ++plan) {
    PlayedTrajectory p{draw(plan), 0};
    const PlayedQuality q = task_.play(step_, p.trajectory.decisions);
    p.quality = -q.loss;
    quality.loss += share * q.loss;
    for (const auto& [name, value] : q.terms) quality.terms[name] += share * value;
    quality.first_picture = q.first_picture;
    played.push_back(std::move(p));
  }
  latest_ = options_.sigma_aware
                ? policy_.update(played)
                : policy_.update_whole_run(task_.inputs().front(), played[0].trajectory.decisions.front(),
                                           played[0].quality);
  ++step_;
  report(quality);
}

void ControllerTrainer::report(const PlayedQuality& quality) {
  const RouteInput& in = task_.inputs().front();
  latest_["loss"] = quality.loss;
  for (const auto& [name, value] : quality.terms) latest_[name] = value;
  latest_["iteration"] = latest_["step"] = static_cast<double>(step_);
  latest_["latent_index"] = static_cast<double>(quality.first_picture);
  latest_["width"] = static_cast<double>(in.width);
  latest_["height"] = static_cast<double>(in.height);
  latest_["sigma_aware_training"] = options_.sigma_aware ? 1 : 0;
  if (!should_log(step_, options_.log_every, options_.iterations, true)) return;
  const Metrics metrics = prefixed_metrics(kControllerMetrics, io::Json(latest_));
  for (const auto& sink : sinks_) sink->write(step_, metrics);
}

void ControllerTrainer::complete() {
  const Metrics metrics =
      prefixed_metrics(kControllerMetrics, {{"training_completed", 1},
                                            {"total_steps", step_},
                                            {"total_iterations", options_.iterations},
                                            {"final_reward_baseline", policy_.baseline().value()}});
  for (const auto& sink : sinks_) sink->write(step_, metrics);
}

void ControllerTrainer::save(const std::string& path) {
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  append_controller(net_, model_, tensors, metadata);
  policy_.append(tensors, metadata);
  metadata["iteration"] = std::to_string(step_);
  inputs_.write(metadata);
  io::write_safetensors(path, tensors, metadata);
}

void ControllerTrainer::load(const std::string& path) {
  const ErrorContext context(path);
  check_controller(path, net_.config(), model_);
  const io::SafetensorsFile file(path);
  const int64_t iterations = counter_of(file, "iteration");
  inputs_.check(file);
  policy_.restore(file);
  step_ = iterations;
}

}  // namespace vkflux
