#include "train/distill/run_sequence.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/io/decimal.h"
#include "model/sampler/step_noise.h"
#include "train/rng.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint32_t kSizeStream = 0x535a;
constexpr size_t kBlock = 16;                  // prompts that are encoded together
constexpr uint64_t kKeepBytes = 512ull << 20;  // of encoded prompts
constexpr const char* kLatent = "sampler.x";
// What samplers of several steps keep: estimates of the clean latent, the newest first, and the latent before
// the last step.
constexpr const char *kClean = "sampler.clean.", *kBefore = "sampler.before";

}  // namespace

RunSequence::RunSequence(Pipeline& pipeline, SamplingPlan plan)
    : pipeline_(pipeline), plan_(std::move(plan)) {
  const SamplingDefaults& d = pipeline.info().defaults;
  if (plan_.prompts.empty()) throw Error(ErrorCode::invalid_argument, "no prompt to sample from");
  if (plan_.sizes.empty()) plan_.sizes = {{d.width, d.height}};
  if (plan_.steps == 0) plan_.steps = d.steps;
  plan_.cfg = plan_.cfg.value_or(d.cfg);
  plan_.guidance = plan_.guidance.value_or(d.guidance);
  if (!std::isfinite(*plan_.guidance)) throw Error(ErrorCode::invalid_argument, "guidance must be finite");
  for (auto& [width, height] : plan_.sizes) {
    const SamplingOptions o = sampling_setup(pipeline.info(), request(width, height)).options;
    width = o.width;
    height = o.height;
  }
  if (*plan_.cfg != 1) negative_ = pipeline.encode({plan_.negative});
  backbone_ = pipeline.backbone();
}

SamplingRequest RunSequence::request(int64_t width, int64_t height) const {
  SamplingRequest r;
  r.width = width;
  r.height = height;
  r.steps = plan_.steps;
  r.cfg = plan_.cfg;
  r.guidance = plan_.guidance;
  return r;
}

int64_t RunSequence::most_tokens() const {
  const int64_t unit = pipeline_.info().pixels_per_token();
  int64_t most = 0;
  for (const auto& [width, height] : plan_.sizes) most = std::max(most, width / unit * (height / unit));
  return most;
}

SamplingSetup RunSequence::setup(int64_t run) const {
  Rng rng(plan_.seed, kSizeStream, static_cast<uint32_t>(run));
  const auto [width, height] = plan_.sizes[rng.below(static_cast<uint32_t>(plan_.sizes.size()))];
  return sampling_setup(pipeline_.info(), request(width, height));
}

Tensor RunSequence::noise(int64_t run) const {
  return pipeline_.info().layout.geometry.pack(
      initial_noise(pipeline_.device(), seeds_from(plan_.seed + static_cast<uint64_t>(run), 1),
                    setup(run).latent, NoiseMode::counter));
}

// Always the same prompts are encoded together, so that a prompt's numbers don't depend on where a run began.
Condition RunSequence::condition(size_t index) {
  const size_t block = index / kBlock, first = block * kBlock;
  auto it = blocks_.find(block);
  if (it == blocks_.end()) {
    uint64_t held = 0;
    for (const auto& [key, c] : blocks_) held += c.bytes();
    if (held > kKeepBytes) blocks_.clear();
    const size_t last = std::min(first + kBlock, plan_.prompts.size());
    it = blocks_
             .emplace(block, pipeline_.encode({plan_.prompts.begin() + static_cast<ptrdiff_t>(first),
                                               plan_.prompts.begin() + static_cast<ptrdiff_t>(last)}))
             .first;
  }
  return it->second.narrow(static_cast<int64_t>(index - first), 1).contiguous();
}

void RunSequence::begin(int64_t run, int64_t step, const Tensor& x, std::optional<Solver::State> resumed) {
  SamplingOptions o = setup(run).options;
  o.start = step;
  o.resumed = std::move(resumed);
  if (tap_) o.taps = {tap_};
  o.noise = [draw = step_noise(pipeline_.device(), seeds_from(plan_.seed + static_cast<uint64_t>(run), 1),
                               setup(run).latent, NoiseMode::counter, plan_.steps),
             geometry = pipeline_.info().layout.geometry](int64_t at) { return geometry.pack(draw(at)); };
  sampling_ = std::make_unique<SamplingRun>(
      *backbone_, condition(static_cast<size_t>(run) % plan_.prompts.size()), negative_, x, o);
  run_ = run;
}

double RunSequence::level() const {
  return sampling_ ? sampling_->level() : setup(run_).options.levels.front();
}

void RunSequence::step(const RoutePlan& plan) {
  if (!sampling_) begin(run_, 0, noise(run_));
  sampling_->step(plan);
  ++steps_done_;
  if (!sampling_->finished()) return;
  sampling_->check_finite();
  sampling_.reset();
  ++run_;
}

io::Json RunSequence::describe() const {
  io::Json sizes = io::Json::array();
  for (const auto& [width, height] : plan_.sizes) sizes.push_back({width, height});
  return {{"prompts", plan_.prompts},
          {"negative", plan_.negative},
          {"sizes", std::move(sizes)},
          {"steps", plan_.steps},
          {"guidance", io::decimal(*plan_.guidance)},
          {"cfg", io::decimal(*plan_.cfg)},
          {"seed", plan_.seed}};
}

io::Json RunSequence::save(std::vector<io::TensorData>& tensors) const {
  io::Json state{{"plan", describe()}, {"run", run_}, {"steps_done", steps_done_}, {"step", 0}};
  if (sampling_) {
    state["step"] = sampling_->step_index();
    const Tensor& x = sampling_->x();
    const auto keep = [&](const std::string& name, const Tensor& t) {
      tensors.push_back(io::tensor_data(name, {t.shape().begin(), t.shape().end()}, t.to_host()));
    };
    keep(kLatent, x);
    const Solver::State& kept = sampling_->solver_state();
    for (size_t i = 0; i < kept.cleans.size(); ++i) keep(fmt::format("{}{}", kClean, i), kept.cleans[i]);
    if (kept.before.defined()) keep(kBefore, kept.before);
  }
  return state;
}

void RunSequence::load(const io::SafetensorsFile& file, const io::Json& state) {
  const auto at = [&](const char* key) {
    const auto n = io::get<int64_t>(state, key, "sampler");
    if (n < 0) throw Error(ErrorCode::format, fmt::format("sampler: \"{}\" is {}", key, n));
    return n;
  };
  const int64_t run = at("run"), step = at("step"), done = at("steps_done");
  const auto plan = io::get<io::Json>(state, "plan", "sampler");
  const bool same = plan == describe();
  Tensor x;
  std::optional<Solver::State> kept;
  if (same && step > 0) {
    if (step >= plan_.steps) throw Error(ErrorCode::format, fmt::format("sampler: step {}", step));
    const Shape shape = noise(run).shape();
    const auto read = [&](const std::string& name) {
      const std::vector<float> values = file.read_f32(name);
      if (!(Shape(file.info(name).shape) == shape)) {
        throw Error(ErrorCode::format, fmt::format("{} is {}, {} is expected", name,
                                                   Shape(file.info(name).shape).str(), shape.str()));
      }
      return Tensor::from(pipeline_.device(), std::span<const float>(values), shape);
    };
    x = read(kLatent);
    const SamplingOptions o = setup(run).options;
    const size_t memory = Solver(o.solver, o.levels).memory();
    if (memory > 0) {
      kept.emplace();
      const size_t n = std::min(memory, static_cast<size_t>(step));
      for (size_t i = 0; i < n; ++i) kept->cleans.push_back(read(fmt::format("{}{}", kClean, i)));
      if (o.solver.sampler == Sampler::unipc) kept->before = read(kBefore);
    }
  }
  if (!same) spdlog::warn("prompts, sizes or sampling settings have changed: sampling starts with a new run");
  sampling_.reset();
  run_ = same || step == 0 ? run : run + 1;
  steps_done_ = done;
  if (x.defined()) begin(run, step, x, std::move(kept));
}

}  // namespace vkflux
