#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/ops.h"
#include "model/pipeline.h"
#include "model/sampler/euler.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSide = 16384, kMaxImages = 4096;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Stopwatch {
 public:
  explicit Stopwatch(double& total) : total_(total) {}
  ~Stopwatch() { total_ += seconds() - start_; }

 private:
  double& total_;
  double start_ = seconds();
};

Tensor repeated(const Tensor& x, int64_t batch) {
  if (x.dim(0) == batch) return x;
  Shape shape = x.shape();
  shape[0] = batch;
  return op::expand(x, shape);
}

/// [1, 3, height, width] in [-1, 1]
Tensor upload_image(Device& device, const RgbImage& image, int64_t width, int64_t height) {
  if (image.width < 1 || image.height < 1 || image.width > kMaxSide || image.height > kMaxSide ||
      image.rgb.size() != static_cast<size_t>(image.width * image.height * 3)) {
    throw Error(ErrorCode::invalid_argument, fmt::format("an init image of {} x {} with {} bytes",
                                                         image.width, image.height, image.rgb.size()));
  }
  std::vector<float> host(image.rgb.size());
  std::transform(image.rgb.begin(), image.rgb.end(), host.begin(),
                 [](uint8_t v) { return static_cast<float>(v) / 127.5f - 1; });
  Tensor x = Tensor::from(device, std::span<const float>(host), {1, image.height, image.width, 3});
  if (image.width != width || image.height != height) x = op::resize_bilinear(x, height, width);
  return op::nhwc_to_nchw(x);
}

/// x[B, 3, H, W] in [-1, 1], clamped and rounded.
std::vector<RgbImage> to_rgb8(const Tensor& x) {
  const std::vector<float> host = x.to_host();
  const int64_t height = x.dim(2), width = x.dim(3);
  const auto plane = static_cast<size_t>(height * width);
  std::vector<RgbImage> out(static_cast<size_t>(x.dim(0)), {width, height, std::vector<uint8_t>(plane * 3)});
  for (size_t b = 0; b < out.size(); ++b) {
    for (size_t i = 0; i < plane; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        const float v = host[(b * 3 + c) * plane + i];
        if (!std::isfinite(v)) {
          throw Error(ErrorCode::verification_failed,
                      "the decoded picture isn't finite although its latent is: the autoencoder's weights "
                      "are damaged");
        }
        out[b].rgb[i * 3 + c] = static_cast<uint8_t>(std::lround((std::clamp(v, -1.0f, 1.0f) + 1) * 127.5f));
      }
    }
  }
  return out;
}

int64_t whole_tokens(const char* what, int64_t asked, int64_t fallback, int64_t unit) {
  const int64_t side = (asked ? asked : fallback) / unit * unit;
  if (side < unit || side > kMaxSide) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} {}: expected {} to {}", what, asked ? asked : fallback, unit, kMaxSide));
  }
  return side;
}

}  // namespace

const char* name(JobPhase phase) {
  switch (phase) {
    case JobPhase::encode:
      return "encode";
    case JobPhase::denoise:
      return "denoise";
    case JobPhase::decode:
      return "decode";
    case JobPhase::done:
      return "done";
  }
  return "";
}

GenerateJob::GenerateJob(Pipeline& pipeline, GenerateRequest request)
    : pipeline_(pipeline), request_(std::move(request)) {
  const PipelineDefaults& d = pipeline_.defaults();
  const int64_t unit = pipeline_.pixels_per_token();
  if (request_.prompts.empty()) throw Error(ErrorCode::invalid_argument, "no prompt was given");
  images_ = static_cast<int64_t>(request_.prompts.size());
  if (images_ == 1) images_ = request_.batch;
  if (images_ < 1 || images_ > kMaxImages) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} pictures: expected 1 to {}", images_, kMaxImages));
  }
  result_.width = whole_tokens("width", request_.width, d.width, unit);
  result_.height = whole_tokens("height", request_.height, d.height, unit);
  result_.cfg = request_.cfg.value_or(d.cfg);
  result_.guidance = pipeline_.transformer_config().guidance ? request_.guidance.value_or(d.guidance) : 0;
  result_.seed = request_.seed;
  if (!std::isfinite(result_.cfg) || !std::isfinite(result_.guidance)) {
    throw Error(ErrorCode::invalid_argument, "guidance and cfg must be finite");
  }
  if (request_.guidance && !pipeline_.transformer_config().guidance) {
    result_.notes.emplace_back("this model has no guidance input: guidance was ignored (cfg works)");
  }
  if (!request_.negative.empty() && result_.cfg == 1) {
    result_.notes.emplace_back("the negative prompt needs cfg other than 1: it was ignored");
  }
  const int64_t tokens = result_.width / unit * (result_.height / unit);
  levels_ = request_.levels.empty()
                ? pipeline_.schedule().levels(request_.steps ? request_.steps : d.steps, tokens)
                : request_.levels;
  check_levels(levels_);
  result_.steps = static_cast<int64_t>(levels_.size()) - 1;
  if (request_.init) image_to_image_start(result_.steps, request_.strength);
  progress_.steps = result_.steps;
}

void GenerateJob::check_cancelled() const {
  if (cancelled_) throw Error(ErrorCode::cancelled, "the picture was cancelled");
}

bool GenerateJob::step() {
  check_cancelled();
  switch (progress_.phase) {
    case JobPhase::encode: {
      const Stopwatch watch(progress_.encode_s);
      begin();
      progress_.phase = JobPhase::denoise;
      break;
    }
    case JobPhase::denoise: {
      const Stopwatch watch(progress_.denoise_s);
      denoise();
      break;
    }
    case JobPhase::decode: {
      const Stopwatch watch(progress_.decode_s);
      decode();
      progress_.phase = JobPhase::done;
      break;
    }
    case JobPhase::done:
      return false;
  }
  result_.timings = progress_;
  if (callback_) callback_(progress_);
  return progress_.phase != JobPhase::done;
}

const GenerateResult& GenerateJob::run() {
  while (step()) {
  }
  return result_;
}

void GenerateJob::begin() {
  Device& device = pipeline_.device();
  // Both sides of the guidance in one pass through the encoders.
  std::vector<std::string> prompts = request_.prompts;
  const auto asked = static_cast<int64_t>(prompts.size());
  if (result_.cfg != 1) prompts.push_back(request_.negative);
  const FluxCondition all = pipeline_.encode(prompts);
  const auto part = [&](int64_t start, int64_t n) {
    return FluxCondition{repeated(op::narrow(all.txt, 0, start, n), images_),
                         repeated(op::narrow(all.y, 0, start, n), images_)};
  };
  std::optional<FluxCondition> negative;
  if (result_.cfg != 1) negative = part(asked, 1);

  const AutoencoderConfig& vae = pipeline_.autoencoder_config();
  const int64_t f = vae.factor(), unit = pipeline_.pixels_per_token();
  const Shape latent{vae.latent_channels, result_.height / f, result_.width / f};
  DenoiseOptions options;
  options.levels = levels_;
  options.guidance = result_.guidance;
  options.cfg = result_.cfg;
  options.rows = result_.height / unit;
  options.columns = result_.width / unit;
  options.width = result_.width;
  options.height = result_.height;
  options.plans = plan_routes();
  options.replay = request_.replay;
  Tensor x = initial_noise(device, images_, latent, request_.seed, request_.noise);
  if (request_.init) {
    options.start = image_to_image_start(result_.steps, request_.strength);
    const auto autoencoder = pipeline_.autoencoder();
    const Tensor picture = upload_image(device, *request_.init, result_.width, result_.height);
    const Tensor clean = autoencoder->to_latent(autoencoder->encode(picture).mean);
    x = noised(repeated(clean, images_), x, levels_[static_cast<size_t>(options.start)]);
  }
  progress_.step = options.start;
  device.stream().sync();
  transformer_ = pipeline_.transformer();
  if (request_.tap) transformer_->attention().add_tap(request_.tap);
  denoiser_ =
      std::make_unique<FluxDenoiser>(*transformer_, part(0, asked), negative, op::patchify(x, 2), options);
  device.stream().sync();
}

void GenerateJob::denoise() {
  Stream& stream = pipeline_.device().stream();
  if (result_.reports.empty()) step_end_ = seconds();
  denoise_routed();
  const uint64_t previous = submitted_;
  submitted_ = stream.submit();
  if (request_.time_steps) {
    stream.wait(submitted_);
    end_of_step();
  } else if (previous) {
    stream.wait(previous);  // at most one step ahead of the device, so progress and cancel mean something
    end_of_step();
  }
  progress_.step = denoiser_->step_index();
  if (!denoiser_->finished()) return;
  denoiser_->check_finite();
  if (!request_.time_steps) end_of_step();
  progress_.phase = JobPhase::decode;
}

void GenerateJob::end_of_step() {
  const double t = seconds();
  result_.reports[timed_++].ms = (t - step_end_) * 1e3;
  step_end_ = t;
}

void GenerateJob::decode() {
  const int64_t f = pipeline_.autoencoder_config().factor();
  result_.latents = op::unpatchify(denoiser_->x(), 2, result_.height / f, result_.width / f);
  denoiser_.reset();
  if (request_.tap) transformer_->attention().remove_tap(request_.tap);
  transformer_.reset();
  const auto autoencoder = pipeline_.autoencoder();
  for (int64_t b = 0; b < images_; ++b) {  // one by one: the decoder's activations are large
    check_cancelled();
    const Tensor z = autoencoder->from_latent(op::narrow(result_.latents, 0, b, 1));
    for (RgbImage& image : to_rgb8(autoencoder->decode(z))) result_.images.push_back(std::move(image));
  }
  pipeline_.device().kernels().save();
}

}  // namespace vkflux
