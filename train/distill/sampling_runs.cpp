#include "train/distill/sampling_runs.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/sampler/noise.h"
#include "train/rng.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint32_t kSizeStream = 0x535a;
constexpr size_t kBlock = 16;                  // prompts that are encoded together
constexpr uint64_t kKeepBytes = 512ull << 20;  // of encoded prompts
constexpr int64_t kMaxSide = 16384;
constexpr const char* kLatent = "sampler.x";

uint64_t bytes_of(const FluxCondition& c) {
  return c.txt.bytes() + c.y.bytes();
}

}  // namespace

SamplingRuns::SamplingRuns(Pipeline& pipeline, SamplingPlan plan)
    : pipeline_(pipeline), plan_(std::move(plan)) {
  const PipelineDefaults& d = pipeline.defaults();
  if (plan_.prompts.empty()) throw Error(ErrorCode::invalid_argument, "no prompt to sample from");
  if (plan_.sizes.empty()) plan_.sizes = {{d.width, d.height}};
  const int64_t unit = pipeline.pixels_per_token();
  for (auto& [width, height] : plan_.sizes) {
    for (int64_t* side : {&width, &height}) {
      const int64_t whole = *side / unit * unit;
      if (whole < unit || whole > kMaxSide) {
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("a side of {} pixels: expected {} to {}", *side, unit, kMaxSide));
      }
      *side = whole;
    }
  }
  if (plan_.steps == 0) plan_.steps = d.steps;
  plan_.cfg = plan_.cfg.value_or(d.cfg);
  plan_.guidance = plan_.guidance.value_or(d.guidance);
  if (!std::isfinite(*plan_.cfg) || !std::isfinite(*plan_.guidance)) {
    throw Error(ErrorCode::invalid_argument, "guidance and cfg must be finite");
  }
  check_levels(pipeline.schedule().levels(plan_.steps, most_tokens()));
  if (*plan_.cfg != 1) negative_ = pipeline.encode({plan_.negative});
  transformer_ = pipeline.transformer();
}

int64_t SamplingRuns::most_tokens() const {
  const int64_t unit = pipeline_.pixels_per_token();
  int64_t most = 0;
  for (const auto& [width, height] : plan_.sizes) most = std::max(most, width / unit * (height / unit));
  return most;
}

std::pair<int64_t, int64_t> SamplingRuns::size_of(int64_t run) const {
  Rng rng(plan_.seed, kSizeStream, static_cast<uint32_t>(run));
  return plan_.sizes[rng.below(static_cast<uint32_t>(plan_.sizes.size()))];
}

Tensor SamplingRuns::noise(int64_t run) const {
  const AutoencoderConfig& vae = pipeline_.autoencoder_config();
  const auto [width, height] = size_of(run);
  const Shape latent{vae.latent_channels, height / vae.factor(), width / vae.factor()};
  return op::patchify(initial_noise(pipeline_.device(), 1, latent, plan_.seed + static_cast<uint64_t>(run),
                                    NoiseMode::counter),
                      2);
}

// Always the same prompts are encoded together, so that a prompt's numbers don't depend on where a run began.
FluxCondition SamplingRuns::condition(size_t index) {
  const size_t block = index / kBlock, first = block * kBlock;
  auto it = blocks_.find(block);
  if (it == blocks_.end()) {
    uint64_t held = 0;
    for (const auto& [key, c] : blocks_) held += bytes_of(c);
    if (held > kKeepBytes) blocks_.clear();
    const size_t last = std::min(first + kBlock, plan_.prompts.size());
    it = blocks_
             .emplace(block, pipeline_.encode({plan_.prompts.begin() + static_cast<ptrdiff_t>(first),
                                               plan_.prompts.begin() + static_cast<ptrdiff_t>(last)}))
             .first;
  }
  const auto row = static_cast<int64_t>(index - first);
  return {op::contiguous(op::narrow(it->second.txt, 0, row, 1)),
          op::contiguous(op::narrow(it->second.y, 0, row, 1))};
}

void SamplingRuns::begin(int64_t run, int64_t step, const Tensor& x) {
  const auto index = static_cast<size_t>(run) % plan_.prompts.size();
  const auto [width, height] = size_of(run);
  const int64_t unit = pipeline_.pixels_per_token();
  DenoiseOptions o;
  o.rows = height / unit;
  o.columns = width / unit;
  o.width = width;
  o.height = height;
  o.levels = pipeline_.schedule().levels(plan_.steps, o.rows * o.columns);
  o.start = step;
  o.guidance = *plan_.guidance;
  o.cfg = *plan_.cfg;
  denoiser_ = std::make_unique<FluxDenoiser>(*transformer_, condition(index), negative_, x, o);
  run_ = run;
}

void SamplingRuns::step() {
  if (!denoiser_) begin(run_, 0, noise(run_));
  denoiser_->step();
  ++steps_done_;
  if (!denoiser_->finished()) return;
  denoiser_->check_finite();
  denoiser_.reset();
  ++run_;
}

io::Json SamplingRuns::describe() const {
  io::Json sizes = io::Json::array();
  for (const auto& [width, height] : plan_.sizes) sizes.push_back({width, height});
  return {{"prompts", plan_.prompts}, {"negative", plan_.negative},  {"sizes", std::move(sizes)},
          {"steps", plan_.steps},     {"guidance", *plan_.guidance}, {"cfg", *plan_.cfg},
          {"seed", plan_.seed}};
}

io::Json SamplingRuns::save(std::vector<io::TensorData>& tensors) const {
  io::Json state{{"plan", describe()}, {"run", run_}, {"steps_done", steps_done_}, {"step", 0}};
  if (denoiser_) {
    state["step"] = denoiser_->step_index();
    const Tensor& x = denoiser_->x();
    tensors.push_back(io::tensor_data(kLatent, {x.shape().begin(), x.shape().end()}, x.to_host()));
  }
  return state;
}

void SamplingRuns::load(const io::SafetensorsFile& file, const io::Json& state) {
  const auto at = [&](const char* key) {
    const auto n = io::get<int64_t>(state, key, "sampler");
    if (n < 0) throw Error(ErrorCode::format, fmt::format("sampler: \"{}\" is {}", key, n));
    return n;
  };
  const int64_t run = at("run"), step = at("step"), done = at("steps_done");
  const auto plan = io::get<io::Json>(state, "plan", "sampler");
  const bool same = plan == describe();
  Tensor x;
  if (same && step > 0) {
    if (step >= plan_.steps) throw Error(ErrorCode::format, fmt::format("sampler: step {}", step));
    const Shape shape = noise(run).shape();
    const std::vector<float> values = file.read_f32(kLatent);
    if (!(Shape(file.info(kLatent).shape) == shape)) {
      throw Error(ErrorCode::format, fmt::format("{} is {}, {} is expected", kLatent,
                                                 Shape(file.info(kLatent).shape).str(), shape.str()));
    }
    x = Tensor::from(pipeline_.device(), std::span<const float>(values), shape);
  }
  if (!same) spdlog::warn("prompts, sizes or sampling settings have changed: sampling starts with a new run");
  denoiser_.reset();
  run_ = same || step == 0 ? run : run + 1;
  steps_done_ = done;
  if (x.defined()) begin(run, step, x);
}

}  // namespace vkflux
