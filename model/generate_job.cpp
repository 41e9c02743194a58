#include "model/generate_job.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/ops.h"
#include "model/circular_codec.h"
#include "model/sampler/mix.h"
#include "model/sampler/step_noise.h"
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

/// The request with the size that its pictures and its max_area ask for.
const GenerateRequest& with_size(const ModelInfo& m, GenerateRequest& r) {
  if (const std::optional<PictureSize> own = size_from_references(m, r)) {
    if (r.width == 0) r.width = own->width;
    if (r.height == 0) r.height = own->height;
  }
  if (r.max_area == 0) return r;
  const PictureSize size =
      size_of_area(r.width ? r.width : m.defaults.width, r.height ? r.height : m.defaults.height, r.max_area,
                   m.pixels_per_token());
  if (size.width == 0 || size.height == 0) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("an area of {} pixels (--max-area) in this shape has a side shorter than a token's {}",
                    r.max_area, m.pixels_per_token()));
  }
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
      setup_(sampling_setup(model.info(), with_size(model.info(), request_))) {
  if (request_.prompts.empty()) throw Error(ErrorCode::invalid_argument, "no prompt was given");
  images_ = static_cast<int64_t>(request_.prompts.size());
  if (images_ > 1 && request_.batch != 1) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("a batch of {} of {} prompts: a batch is of one prompt", request_.batch, images_));
  }
  if (request_.negative.size() > 1 && request_.negative.size() != request_.prompts.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} negative prompts for {}: give one for all, or one for each",
                            request_.negative.size(), images_));
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
  const auto said = [](const std::string& text) { return !text.empty(); };
  if (std::any_of(request_.negative.begin(), request_.negative.end(), said) && result_.cfg == 1) {
    result_.notes.emplace_back("the negative prompt needs cfg other than 1: it was ignored");
  }
  result_.steps = static_cast<int64_t>(o.levels.size()) - 1;
  result_.levels = o.levels;
  result_.sampler = name(o.solver);
  check_latents("the starting noise", request_.start_noise);
  check_latents("the latents", request_.latents);
  check_pictures(model.info(), request_, o, result_.notes);
  result_.strength = request_.strength.value_or(model.info().defaults.strength);
  if (request_.init)
    first_step_ = setup_.options.start = image_to_image_start(result_.steps, result_.strength);
  setup_.options.wrap_rows = request_.circular_y;
  setup_.options.wrap_columns = request_.circular_x;
  setup_.options.replay = request_.replay;
  if (request_.tap) setup_.options.taps = {request_.tap};
  progress_.steps = result_.steps;
}

void GenerateJob::check_latents(const char* what, const Tensor& x) const {
  if (!x.defined()) return;
  Shape wanted{images_};
  for (const int64_t d : setup_.latent) wanted.push_back(d);
  if (x.shape() == wanted) return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} {}: {} pictures of {}x{} need {}", what, x.shape().str(), images_,
                          setup_.options.width, setup_.options.height, wanted.str()));
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
      progress_.phase = request_.latents.defined() ? JobPhase::decode : JobPhase::denoise;
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

// A value beyond f16 is cut to 65504 where a kernel rounds to it, so it is looked for too: it is as wrong as
// one that isn't finite.
Condition GenerateJob::encode(const std::vector<std::string>& prompts) {
  const auto fault = [&](const Condition& c) {
    std::string out;
    c.visit([&](const std::string& name, const Tensor& x) {
      if (out.empty() && !is_finite(x)) out = name;
    });
    if (out.empty()) return out;
    const std::string where = model_.not_finite_in_encode(prompts);
    return fmt::format("the text encoders gave values that aren't finite ({}{})", out,
                       where.empty() ? "" : ", first in " + where);
  };
  const auto note = [&](std::string text) {
    spdlog::warn("{}", text);
    result_.notes.push_back(std::move(text));
  };
  device_.saturated().take();
  const Condition first = model_.encode(prompts);
  const std::string bad = fault(first);
  const uint64_t cut = bad.empty() ? device_.saturated().take() : 0;
  if (bad.empty() && cut == 0) return first;
  const std::string what =
      bad.empty() ? fmt::format("{} values in the text encoders were beyond f16 and were cut", cut) : bad;
  if (!model_.use_f32(ModelStage::text)) {
    if (bad.empty()) return first;
    throw Error(ErrorCode::verification_failed, what + ": the weights are f32 already, so they are damaged");
  }
  Condition again;
  try {
    again = model_.encode(prompts);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::out_of_device_memory || !bad.empty()) throw;
    note(what + "; there isn't the memory to encode again with f32 weights (bf16 has their range)");
    return first;
  }
  note(what + "; encoded again with f32 weights");
  if (const std::string still = fault(again); !still.empty())
    throw Error(ErrorCode::verification_failed, still + " with f32 weights too: they are damaged");
  return again;
}

void GenerateJob::begin_run(const Tensor& x) {
  backbone_ = model_.backbone();
  run_ = std::make_unique<SamplingRun>(*backbone_, positive_, negative_, x, setup_.options);
}

void GenerateJob::begin() {
  if (request_.latents.defined()) {
    progress_.step = result_.steps;
    return;
  }
  // Both sides of the guidance in one pass through the encoders.
  std::vector<std::string> prompts = request_.prompts;
  const auto asked = static_cast<int64_t>(prompts.size());
  if (result_.cfg != 1 && request_.negative.empty()) prompts.emplace_back();
  if (result_.cfg != 1) prompts.insert(prompts.end(), request_.negative.begin(), request_.negative.end());
  const Condition all = encode(prompts);
  positive_ = all.narrow(0, asked).repeat(images_);
  if (result_.cfg != 1)
    negative_ = all.narrow(asked, static_cast<int64_t>(prompts.size()) - asked).repeat(images_);
  plan_routes();
  SamplingOptions& o = setup_.options;
  const LatentGeometry& geometry = model_.info().layout.geometry;
  o.noise = [draw = step_noise(device_, seeds_from(request_.seed, images_), setup_.latent, request_.noise,
                               result_.steps),
             geometry](int64_t step) { return geometry.pack(draw(step)); };
  Tensor x = request_.start_noise;
  if (!x.defined())
    x = initial_noise(device_, seeds_from(request_.seed, images_), setup_.latent, request_.noise);
  result_.noise = x;
  x = with_pictures(x);
  progress_.step = o.start;
  device_.stream().sync();
  begin_run(geometry.pack(x));
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
  if (!first_) first_ = stream.time_of(stream.next_value());
  const double flops = stream.counters().flops;
  const int64_t step = run_->step_index();
  Unchecked now{step, run_->x(), run_->solver_state(), {}};
  run_->step(plans_.empty() ? RoutePlan() : plans_[static_cast<size_t>(step - first_step_)]);
  report_step(flops);
  now.magnitude = stream.begin_download(run_->magnitude().range());
  unchecked_.push_back(std::move(now));
  const uint64_t previous = submitted_;
  submitted_ = stream.submit();
  ends_.push_back(stream.time_of(submitted_));
  // At most one step ahead of the device, so that progress and cancel mean something.
  bool good = true;
  if (request_.time_steps) {
    stream.wait(submitted_);
    end_of_step();
    good = settle();
  } else if (previous) {
    stream.wait(previous);
    end_of_step();
    good = settle();
  }
  if (good && run_->finished() && !request_.time_steps) {
    stream.wait(submitted_);
    end_of_step();
    good = settle();
  }
  progress_.step = run_->step_index();
  if (!good) return;
  if (!run_->finished()) return show_preview();
  run_->check_finite();
  progress_.phase = JobPhase::decode;
}

// Whether the oldest step that is unchecked gave finite values; where not, it is made again, and those after
// it.
bool GenerateJob::settle() {
  const Unchecked oldest = std::move(unchecked_.front());
  unchecked_.pop_front();
  float magnitude = 0;
  device_.stream().finish(oldest.magnitude, std::as_writable_bytes(std::span(&magnitude, 1)));
  if (std::isfinite(magnitude)) return true;
  recover(oldest);
  return false;
}

void GenerateJob::recover(const Unchecked& bad) {
  device_.stream().sync();
  const std::string where = run_->first_not_finite(bad.x, bad.step);
  const std::string what =
      fmt::format("the latent isn't finite after step {} of {} ({})", bad.step + 1, result_.steps,
                  where.empty() ? "though everything is with full attention" : "first in " + where);
  if (!model_.use_f32(ModelStage::transformer)) {
    throw Error(ErrorCode::verification_failed,
                what + ": the weights are damaged, or the numbers asked for (guidance, cfg) too large");
  }
  result_.notes.push_back(what + "; from this step on again, with f32 weights");
  spdlog::warn("{}", result_.notes.back());
  run_.reset();
  backbone_.reset();
  unchecked_.clear();
  ends_.clear();
  result_.reports.resize(static_cast<size_t>(bad.step - first_step_));
  timed_ = result_.reports.size();
  first_ = nullptr;
  submitted_ = 0;
  setup_.options.start = bad.step;
  setup_.options.resumed = bad.state;
  begin_run(bad.x);
  device_.stream().sync();
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
    r.threshold = decisions_[static_cast<size_t>(r.index - first_step_)].threshold;
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
  if (begin_ != first_) {
    begin_ = first_;
    step_end_ms_ = first_->begin_ms;
  }
  const double end = ends_.front()->end_ms;
  result_.reports[timed_++].ms = end - step_end_ms_;
  step_end_ms_ = end;
  ends_.pop_front();
}

Tensor GenerateJob::latents() const {
  if (result_.latents.defined()) return result_.latents;
  if (!run_) return {};
  return model_.info().layout.geometry.unpack(run_->x(), setup_.latent[1], setup_.latent[2]);
}

void GenerateJob::decode() {
  result_.latents = request_.latents.defined() ? request_.latents : latents();
  run_.reset();
  backbone_.reset();
  std::shared_ptr<const LatentCodec> codec = request_.decoder ? request_.decoder : model_.codec();
  if (request_.circular_x || request_.circular_y)
    codec = std::make_shared<CircularCodec>(codec, request_.circular_x, request_.circular_y);
  for (int64_t b = 0; b < images_; ++b) {  // one by one: the decoder's activations are large
    check_cancelled();
    const Tensor latent = op::narrow(result_.latents, 0, b, 1);
    const Tensor x = codec->decode(latent);
    if (!is_finite(x)) {
      const std::string where = codec->not_finite_in_decode(latent);
      throw Error(ErrorCode::verification_failed,
                  fmt::format("the decoded picture isn't finite although its latent is{}: the autoencoder's "
                              "weights, which are f32 already, are damaged",
                              where.empty() ? "" : " (first in " + where + ")"));
    }
    for (RgbImage& image : to_pictures(x))
      result_.images.push_back(request_.composite ? composited(image, request_) : std::move(image));
  }
  device_.kernels().save();
}

}  // namespace vkflux
