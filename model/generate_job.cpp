#include "model/generate_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/ops.h"
#include "model/circular_codec.h"
#include "model/sampler/euler.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxImages = 4096;

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

/// The request with the size that its max_area asks for.
const GenerateRequest& in_area(const ModelInfo& m, GenerateRequest& r) {
  if (r.max_area == 0) return r;
  const PictureSize size =
      size_of_area(r.width ? r.width : m.defaults.width, r.height ? r.height : m.defaults.height, r.max_area,
                   m.pixels_per_token());
  r.width = size.width;
  r.height = size.height;
  return r;
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

GenerateJob::GenerateJob(Device& device, Model& model, GenerateRequest request)
    : device_(device),
      model_(model),
      request_(std::move(request)),
      setup_(sampling_setup(model.info(), in_area(model.info(), request_))) {
  if (request_.prompts.empty()) throw Error(ErrorCode::invalid_argument, "no prompt was given");
  images_ = static_cast<int64_t>(request_.prompts.size());
  if (images_ > 1 && request_.batch != 1) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("a batch of {} of {} prompts: a batch is of one prompt", request_.batch, images_));
  }
  if (images_ == 1) images_ = request_.batch;
  if (images_ < 1 || images_ > kMaxImages) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} pictures: expected 1 to {}", images_, kMaxImages));
  }
  const SamplingOptions& o = setup_.options;
  result_.width = o.width;
  result_.height = o.height;
  result_.cfg = o.cfg;
  result_.guidance = o.guidance;
  result_.seed = request_.seed;
  result_.notes = setup_.notes;
  if (!request_.negative.empty() && result_.cfg == 1) {
    result_.notes.emplace_back("the negative prompt needs cfg other than 1: it was ignored");
  }
  result_.steps = static_cast<int64_t>(o.levels.size()) - 1;
  check_pictures(model.info(), request_, o, result_.notes);
  result_.strength = request_.strength.value_or(model.info().defaults.strength);
  if (request_.init) setup_.options.start = image_to_image_start(result_.steps, result_.strength);
  setup_.options.wrap_rows = request_.circular_y;
  setup_.options.wrap_columns = request_.circular_x;
  setup_.options.replay = request_.replay;
  if (request_.tap) setup_.options.taps = {request_.tap};
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
  // Both sides of the guidance in one pass through the encoders.
  std::vector<std::string> prompts = request_.prompts;
  const auto asked = static_cast<int64_t>(prompts.size());
  if (result_.cfg != 1) prompts.push_back(request_.negative);
  const Condition all = model_.encode(prompts);
  std::optional<Condition> negative;
  if (result_.cfg != 1) negative = all.narrow(asked, 1).repeat(images_);
  plan_routes();
  const SamplingOptions& o = setup_.options;
  Tensor x = initial_noise(device_, seeds_from(request_.seed, images_), setup_.latent, request_.noise);
  x = with_pictures(x);
  progress_.step = o.start;
  device_.stream().sync();
  backbone_ = model_.backbone();
  run_ = std::make_unique<SamplingRun>(*backbone_, all.narrow(0, asked).repeat(images_), negative,
                                       model_.info().layout.geometry.pack(x), o);
  device_.stream().sync();
}

// Encodes the pictures of the request; the state to begin with comes back, from noise.
Tensor GenerateJob::with_pictures(const Tensor& noise) {
  SamplingOptions& o = setup_.options;
  const auto codec = [&]() -> std::shared_ptr<const LatentCodec> {
    if (!request_.circular_x && !request_.circular_y) return model_.codec();
    return std::make_shared<CircularCodec>(model_.codec(), request_.circular_x, request_.circular_y);
  };
  const PictureInputs in = encode_pictures(device_, model_.info(), request_, o.width, o.height, codec);
  o.pictures = in.condition.repeat(images_);
  o.references = in.references;
  if (!in.clean.defined()) return noise;
  const Tensor clean = op::expand(in.clean, noise.shape());
  if (in.repaint.defined()) {
    const LatentGeometry& geometry = model_.info().layout.geometry;
    const Tensor packed = geometry.pack(noise);
    o.kept = {geometry.pack(clean), packed, op::expand(in.repaint, packed.shape())};
  }
  return noised(clean, noise, o.levels[static_cast<size_t>(o.start)]);
}

void GenerateJob::plan_routes() {
  if (!request_.router) return;
  const SamplingOptions& o = setup_.options;
  std::vector<RouteInput> inputs;
  for (auto i = static_cast<size_t>(o.start); i + 1 < o.levels.size(); ++i)
    inputs.push_back({o.levels[i], o.cfg, o.width, o.height});
  decisions_ = request_.router->plan(inputs, request_.route_seed.value_or(request_.seed));
  if (decisions_.size() != inputs.size()) {
    throw Error(ErrorCode::internal,
                fmt::format("the router decided {} of {} steps", decisions_.size(), inputs.size()));
  }
  for (const RouteDecision& d : decisions_) plans_.push_back(route_plan(d, model_.info().layout));
}

int64_t GenerateJob::planned() const {
  int64_t n = 0;
  for (const RouteDecision& d : decisions_) n += std::count(d.student.begin(), d.student.end(), 1);
  return n;
}

void GenerateJob::denoise() {
  Stream& stream = device_.stream();
  if (result_.reports.empty()) first_ = stream.time_of(stream.next_value());
  const double flops = stream.counters().flops;
  run_->step(plans_.empty() ? RoutePlan()
                            : plans_[static_cast<size_t>(run_->step_index() - setup_.options.start)]);
  report_step(flops);
  const uint64_t previous = submitted_;
  submitted_ = stream.submit();
  ends_.push_back(stream.time_of(submitted_));
  if (request_.time_steps) {
    stream.wait(submitted_);
    end_of_step();
  } else if (previous) {
    stream.wait(previous);  // at most one step ahead of the device, so progress and cancel mean something
    end_of_step();
  }
  progress_.step = run_->step_index();
  if (!run_->finished()) return show_preview();
  run_->check_finite();
  if (!request_.time_steps) end_of_step();
  progress_.phase = JobPhase::decode;
}

void GenerateJob::show_preview() const {
  if (!request_.preview || (run_->step_index() - setup_.options.start) % request_.preview_every) return;
  const Tensor clean = op::add(run_->x(), op::affine(run_->output(), static_cast<float>(-run_->level())));
  request_.preview(run_->step_index(),
                   model_.info().layout.geometry.unpack(clean, setup_.latent[1], setup_.latent[2]));
}

void GenerateJob::report_step(double flops_before) {
  StepReport r;
  r.index = run_->step_index() - 1;
  r.sigma = setup_.options.levels[static_cast<size_t>(r.index)];
  r.flops = device_.stream().counters().flops - flops_before;
  const AttentionRun& attention = run_->attention();
  for (const Served& s : attention.served()) {
    r.attention_flops += attention.passes() * s.flops;
    r.full_attention_flops += attention.passes() * s.full_flops;
  }
  if (!decisions_.empty()) {
    r.routed = true;
    r.threshold = decisions_[static_cast<size_t>(r.index - setup_.options.start)].threshold;
  }
  const std::vector<int> layers = model_.info().layout.replaceable();
  for (size_t l = 0; l < layers.size(); ++l) {
    const Served& s = attention.served()[static_cast<size_t>(layers[l])];
    if (s.asked != AttentionKind::full) r.planned.push_back(static_cast<int>(l));
    if (s.kind != AttentionKind::full) r.student.push_back(static_cast<int>(l));
    if (!s.refusal.empty()) r.refused.push_back({static_cast<int>(l), s.refusal});
  }
  result_.reports.push_back(std::move(r));
}

void GenerateJob::end_of_step() {
  if (timed_ == 0) step_end_ms_ = first_->begin_ms;
  const double end = ends_.front()->end_ms;
  result_.reports[timed_++].ms = end - step_end_ms_;
  step_end_ms_ = end;
  ends_.pop_front();
}

void GenerateJob::decode() {
  result_.latents = model_.info().layout.geometry.unpack(run_->x(), setup_.latent[1], setup_.latent[2]);
  run_.reset();
  backbone_.reset();
  std::shared_ptr<const LatentCodec> codec = request_.decoder ? request_.decoder : model_.codec();
  if (request_.circular_x || request_.circular_y)
    codec = std::make_shared<CircularCodec>(codec, request_.circular_x, request_.circular_y);
  for (int64_t b = 0; b < images_; ++b) {  // one by one: the decoder's activations are large
    check_cancelled();
    const Tensor x = codec->decode(op::narrow(result_.latents, 0, b, 1));
    for (RgbImage& image : to_pictures(x))
      result_.images.push_back(request_.composite ? composited(image, request_) : std::move(image));
  }
  device_.kernels().save();
}

}  // namespace vkflux
