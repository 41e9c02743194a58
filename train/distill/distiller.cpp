#include "train/distill/distiller.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "autograd/ops.h"
#include "model/attention/hkr/landmarks.h"
#include "model/attention/hkr/made_for.h"
#include "train/metric_values.h"
#include "train/rng.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr uint32_t kSwapStream = 0x5741, kReplayStream = 0x5250;
constexpr int64_t kSnapshotEvery = 10, kMostRefused = 64;
constexpr uint64_t kMostFresh = uint64_t{256} << 20;  // bytes of samples that the device may still hold
// The averages of readiness keep 0.9 of their past at every flush of 20 losses, so a layer needs far more
// than min_updates until they have forgotten its beginnings.
constexpr int64_t kLagFactor = 16;

DType device_dtype(io::FileDType t) {
  return t == io::FileDType::f16 ? DType::f16 : t == io::FileDType::bf16 ? DType::bf16 : DType::f32;
}

/// Room for what x will be on the host.
HostTensor room_for(const Tensor& x, io::FileDType dtype) {
  return {dtype, {x.shape().begin(), x.shape().end()}, std::vector<std::byte>(x.bytes())};
}

/// Rows of [B, H, N, D] at the given places of N.
Tensor pick_queries(const Tensor& x, const std::vector<int32_t>& rows) {
  const int64_t n = x.dim(2);
  if (static_cast<int64_t>(rows.size()) == n) return x;
  std::vector<int32_t> ids;
  for (int64_t bh = 0; bh < x.dim(0) * x.dim(1); ++bh) {
    for (int32_t row : rows) ids.push_back(static_cast<int32_t>(bh * n) + row);
  }
  const Tensor flat = op::contiguous(x).view({x.dim(0) * x.dim(1) * n, x.dim(3)});
  const Tensor list =
      Tensor::from(x.device(), std::span<const int32_t>(ids), {static_cast<int64_t>(ids.size())});
  return op::gather_rows(flat, list).view({x.dim(0), x.dim(1), static_cast<int64_t>(rows.size()), x.dim(3)});
}

bool out_of_memory(const Error& e) {
  return e.code() == ErrorCode::out_of_device_memory || e.code() == ErrorCode::out_of_host_memory;
}

HkrConfig config_of(const BackboneLayout& model, const DistillOptions& o) {
  HkrConfig c;
  c.head_dim = replaceable_shape(model).head_dim;
  c.feature_dim = o.settings.feature_dim;
  c.hidden = o.feature_hidden;
  c.layers = o.feature_layers;
  c.check();
  return c;
}

// `stored`: its tensors on the device, as they are stored.
TeacherSample widened(Device& device, const ReplaySample& s, const std::array<Tensor, 4>& stored) {
  const auto wide = [&](size_t i) { return op::cast(stored[i], DType::f32); };
  TeacherSample out{{wide(0), wide(1), wide(2), {}, s.context}, wide(3)};
  if (!s.key_mask.empty()) {
    const Shape keys{stored[1].dim(0), stored[1].dim(2)};
    out.call.key_mask = Tensor::from(device, std::span<const uint8_t>(s.key_mask), keys);
  }
  return out;
}

}  // namespace

int64_t updates_needed(int64_t layers, int64_t min_updates) {
  return layers * std::max<int64_t>(1, min_updates) * kLagFactor;
}

uint64_t Distiller::Fresh::bytes() const {
  uint64_t sum = 0;
  for (const Tensor& t : tensors) sum += t.bytes();
  return sum;
}

TeacherSample upload(Device& device, const ReplaySample& s) {
  const auto send = [&](const HostTensor& t) {
    return Tensor::from_bytes(device, t.bytes, Shape(t.shape), device_dtype(t.dtype));
  };
  return widened(device, s, {send(s.q_sub), send(s.k_full), send(s.v_full), send(s.teacher_sub)});
}

TeacherSample Distiller::sample(const std::string& layer, size_t index) const {
  const ReplaySample& s = replay_.at(layer, index);
  const auto fresh =
      std::find_if(fresh_.begin(), fresh_.end(), [&](const Fresh& f) { return f.created == s.created; });
  return fresh == fresh_.end() ? upload(device_, s) : widened(device_, s, fresh->tensors);
}

Distiller::Distiller(Device& device, const BackboneLayout& model, const DistillOptions& options)
    : device_(device),
      options_(options),
      weights_(device),
      replay_(options.settings.replay_buffer_size, options.settings.replay_max_bytes) {
  options_.settings.sanitise();
  const DistillSettings& s = options_.settings;
  students_.model = model;
  students_.config = config_of(model, options_);
  students_.options = s.hkr_options();
  students_.max_safe_loss = s.max_safe_inference_loss;
  students_.fields = io::Json::object();
  constexpr uint64_t kLayerSeeds = 0x9e3779b97f4a7c15;
  const std::vector<int> places = model.replaceable();
  for (size_t i = 0; i < places.size(); ++i) {
    if (!s.selects_layer(static_cast<int64_t>(i))) continue;
    const std::string& name = model.layers[static_cast<size_t>(places[i])].name;
    Layer& layer = layers_[name];
    layer.number = static_cast<uint32_t>(i);
    layer.student = std::make_shared<Student>();
    layer.student->layer = std::make_shared<HkrLayer>(students_.config, students_.options);
    layer.student->readiness.criteria = s.readiness;
    layer.student->last_loss = std::numeric_limits<double>::quiet_NaN();
    HkrLayer& hkr = *layer.student->layer;
    const std::vector<Param> params = parameters(hkr);
    allocate(params, device);
    initialise(params, hkr_init(students_.config, s.alpha_init),
               options_.seed + kLayerSeeds * static_cast<uint64_t>(i + 1));
    layer.trainer = std::make_unique<StudentTrainer>(device, hkr, optimizer());
    students_.layers[name] = layer.student;
  }
  if (layers_.empty()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("no layer to distil: --layer-start {} and --layer-end {} leave none of {} layers "
                            "that may be replaced",
                            s.layer_start, s.layer_end, places.size()));
  }
  set_total_updates(s.steps);
}

Distiller::~Distiller() {
  detach();
}

StudentOptimizer Distiller::optimizer() const {
  const DistillSettings& s = options_.settings;
  return {s.learning_rate, s.phi_lr_multiplier, s.alpha_lr_multiplier, s.grad_clip_norm, s.huber_beta, {}};
}

void Distiller::attach(AttentionBank& bank) {
  detach();
  bank_ = &bank;
  before_ = bank.strategies();
  Students previewed = students_;
  previewed.max_safe_loss = 0;  // the guard is for sampling without a teacher beside it
  install(previewed, bank);
}

void Distiller::detach() {
  if (bank_) bank_->restore(std::move(before_));
  bank_ = nullptr;
}

// Moves samples to the replay buffer, oldest first, until the device holds no more than keep_bytes of them.
void Distiller::take_samples(uint64_t keep_bytes) {
  uint64_t held = 0;
  for (const Fresh& f : fresh_) held += f.bytes();
  for (; !fresh_.empty() && held > keep_bytes; fresh_.pop_front()) {
    const Fresh& f = fresh_.front();
    held -= f.bytes();
    ReplaySample* s = replay_.find(f.layer, f.created);
    if (!s) continue;  // given up meanwhile
    const std::array<HostTensor*, 4> to{&s->q_sub, &s->k_full, &s->v_full, &s->teacher_sub};
    for (size_t i = 0; i < to.size(); ++i) device_.stream().finish(f.downloads[i], to[i]->bytes);
  }
}

void Distiller::end_step() {
  take_samples(0);
  for (const Issued& issued : std::exchange(issued_, {})) {
    const UpdateResult result = layers_.at(issued.layer).trainer->finish(issued.update, weights_);
    if (result.applied) {
      count(issued, result);
      continue;
    }
    if (++refused_ > kMostRefused) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{}: {} updates gave a loss or gradient that isn't finite; lower "
                              "--learning-rate (now {})",
                              issued.layer, refused_, options_.settings.learning_rate));
    }
    if (refused_ == 1) spdlog::warn("{}: an update with loss {} was left out", issued.layer, result.loss);
  }
}

RoutePlan Distiller::begin_step(int64_t step, float sigma) {
  end_step();
  if (ema_.begin_call(sigma)) flush();
  const DistillSettings& s = options_.settings;
  const auto n = static_cast<int64_t>(layers_.size());
  const int64_t low = std::clamp<int64_t>(s.min_swap_layers, 0, n);
  const int64_t high = std::max(low, s.max_swap_layers < 0 ? n : std::min(s.max_swap_layers, n));
  Rng rng(options_.seed, kSwapStream, static_cast<uint32_t>(step), static_cast<uint32_t>(step >> 32));
  auto count = static_cast<size_t>(low + rng.below(static_cast<uint32_t>(high - low + 1)));
  std::vector<std::string> order;
  for (const auto& [name, layer] : layers_) order.push_back(name);
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    std::swap(order[i], order[i + rng.below(static_cast<uint32_t>(order.size() - i))]);
  }
  if (options_.schedule == LayerSchedule::round_robin) {
    std::stable_sort(order.begin(), order.end(), [&](const std::string& a, const std::string& b) {
      return layers_.at(a).student->readiness.updates < layers_.at(b).student->readiness.updates;
    });
  }
  count = std::min(count, order.size());
  swapped_ = {order.begin(), order.begin() + static_cast<ptrdiff_t>(count)};
  // While students are trained, those that aren't in this step stay out of it.
  RoutePlan plan(students_.model.layers.size(), AttentionKind::full);
  for (size_t i = 0; s.preview && i < plan.size(); ++i) {
    const std::string& name = students_.model.layers[i].name;
    if (layers_.count(name) && (!training() || swapped_.count(name))) plan[i] = AttentionKind::hkr;
  }
  return plan;
}

void Distiller::set_total_updates(int64_t total) {
  options_.settings.steps = std::max<int64_t>(0, total);
  remaining_ = std::max<int64_t>(0, options_.settings.steps - done_);
  enabled_ = remaining_ > 0;
}

void Distiller::set_learning_rate(double rate) {
  options_.settings.learning_rate = rate;
  for (auto& [name, layer] : layers_) layer.trainer->options() = optimizer();
}

void Distiller::reset_criteria(const ReadinessCriteria& criteria) {
  options_.settings.readiness = criteria;
  for (auto& [name, layer] : layers_) {
    layer.student->readiness.criteria = criteria;
    layer.student->readiness.refresh();
  }
}

DistillTotals Distiller::totals() const {
  DistillTotals t;
  t.updates = done_;
  t.remaining = remaining_;
  t.log_var_huber = last_ ? last_->log_var_huber : static_cast<double>(weights_.huber().item());
  t.log_var_cosine = last_ ? last_->log_var_cosine : static_cast<double>(weights_.cosine().item());
  t.replay_bytes = replay_.bytes();
  t.replay_budget = replay_.max_bytes();
  return t;
}

void Distiller::say(const std::string& line) const {
  if (message_) message_(line);
}

void Distiller::flush() {
  ByLayer<Readiness*> all;
  for (auto& [name, layer] : layers_) all[name] = &layer.student->readiness;
  for (const EmaFlush& f : ema_.flush(all)) {
    const Readiness& r = *all.at(f.layer);
    say(fmt::format("{}: EMA loss {:.4g}, cosine distance {:.4f} (threshold {:.4g}), {} updates, {}{}",
                    f.layer, r.ema_loss.value_or(NAN), r.ema_cosine_dist.value_or(NAN), r.criteria.threshold,
                    r.updates, r.ready ? "ready" : "not ready", f.changed ? " (changed)" : ""));
  }
}

const std::string& Distiller::name_of(const AttentionCall& call) const {
  return students_.model.layers[static_cast<size_t>(call.layer)].name;
}

bool Distiller::wants_full(const AttentionCall& call) {
  const std::string& layer = name_of(call);
  return layers_.count(layer) != 0 && (!training() || swapped_.count(layer) != 0);
}

void Distiller::taught(const AttentionCall& call, const Tensor& full) {
  if (!training()) return;
  const std::string& layer = name_of(call);
  try {
    store(layer, call, full);
    train(layer);
  } catch (const Error& e) {
    if (!out_of_memory(e)) throw;
    degrade_after(layer, e.what());
  }
}

void Distiller::store(const std::string& layer, const AttentionCall& call, const Tensor& teacher) {
  const io::FileDType dtype = options_.settings.replay_dtype();
  const std::vector<int32_t> rows = select_training_queries(call.q.dim(2), options_.settings.sizes.query_cap);
  ReplaySample s;
  Fresh fresh{layer, 0, {pick_queries(call.q, rows), call.k, call.v, pick_queries(teacher, rows)}, {}};
  const std::array<HostTensor*, 4> to{&s.q_sub, &s.k_full, &s.v_full, &s.teacher_sub};
  const RegionScope lasting(device_.pool(), 0);
  for (size_t i = 0; i < to.size(); ++i) {
    Tensor& t = fresh.tensors[i];
    t = op::cast(t, device_dtype(dtype));
    *to[i] = room_for(t, dtype);
    fresh.downloads[i] = device_.stream().begin_download(t.range());
  }
  if (call.tokens.key_mask.defined()) {
    s.key_mask = safe_mask(call.tokens.key_mask.to_host_bytes(), call.k.dim(0));
  }
  s.context.text = s.context.conditioning = std::min(call.tokens.text, call.k.dim(2));
  if (std::isfinite(call.step.sigma)) s.context.sigma = call.step.sigma;
  s.context.cfg = std::isfinite(call.step.cfg_scale) ? static_cast<double>(call.step.cfg_scale)
                                                     : options_.settings.cfg_scale;
  replay_.push(layer, std::move(s));
  fresh.created = replay_.created();
  fresh_.push_back(std::move(fresh));
  take_samples(kMostFresh);
}

PendingUpdate Distiller::update(const std::string& layer, const TeacherSample& sample) {
  return layers_.at(layer).trainer->begin(sample, weights_);
}

void Distiller::train(const std::string& layer) {
  for (int64_t r = 0; r < options_.settings.train_steps_per_call && training(); ++r) {
    const auto held = static_cast<uint32_t>(replay_.size(layer));
    if (held == 0) return;
    const auto number = static_cast<uint32_t>(done_) + static_cast<uint32_t>(issued_.size());
    Rng rng(options_.seed, kReplayStream, number, layers_.at(layer).number);
    const TeacherSample s = sample(layer, rng.below(held));
    PendingUpdate pending = update(layer, s);
    pending.out = {};
    issued_.push_back({layer, s.call.context, std::move(pending)});
  }
}

void Distiller::count(const Issued& issued, const UpdateResult& result) {
  const std::string& layer = issued.layer;
  Student& student = *layers_.at(layer).student;
  Readiness& ready = student.readiness;
  student.last_loss = result.loss;
  last_ = result;
  if (ema_.add_loss(layer, result.loss, ready)) {
    say(fmt::format("{} is {}", layer, ready.ready ? "ready" : ready.refusal()));
  }
  --remaining_;
  ++done_;
  LayerValues v = no_values();
  value_of(v, "loss") = result.loss;
  value_of(v, "mse") = result.mse;
  value_of(v, "nmse") = result.nmse;
  value_of(v, "cosine_similarity") = result.cosine;
  value_of(v, "ema_loss") = ready.ema_loss.value_or(result.loss);
  value_of(v, "updates") = static_cast<double>(ready.updates);
  value_of(v, "ready") = ready.ready ? 1 : 0;
  if (issued.context.sigma) value_of(v, "sigma") = *issued.context.sigma;
  if (issued.context.cfg) value_of(v, "cfg_scale") = *issued.context.cfg;
  value_of(v, "layers_swapped") = static_cast<double>(swapped_.size());
  value_of(v, "layers_total") = static_cast<double>(layers_.size());
  value_of(v, "alpha_sigmoid") = 1 / (1 + std::exp(-result.alpha));
  value_of(v, "ema_cosine_dist") = ready.ema_cosine_dist.value_or(1 - result.cosine);
  metrics_.record(layer, v);
  ema_.add_similarity(layer, result.cosine);
  if (ema_.flush_due() || remaining_ == 0) flush();
  if (remaining_ == 0) enabled_ = false;
  if (!sinks_.empty() && should_log(done_, options_.settings.log_every, done_ + remaining_, false)) {
    const Metrics report = metrics_.report(layer, students_, totals());
    for (const auto& sink : sinks_) sink->write(done_, report);
  }
  if (done_ % kSnapshotEvery == 0 || remaining_ == 0) say(metrics_.snapshot(students_, totals()));
}

void Distiller::degrade_after(const std::string& layer, const std::string& why) {
  TrainingSizes& sizes = options_.settings.sizes;
  const TrainingSizes before = sizes;
  end_step();  // what is under way has memory, too
  const bool changed = degrade(sizes);
  const uint64_t freed = replay_.clear(layer);
  device_.pool().trim();
  if (!changed) {
    enabled_ = false;
    spdlog::warn("{}: out of memory with every size at its least: training stops, sampling goes on\n{}",
                 layer, why);
    return;
  }
  apply_sizes();
  const std::string line =
      fmt::format("{}: out of memory: {}; {:.1f} MB of replay given up", layer,
                  describe_degradation(before, sizes), static_cast<double>(freed) / (1 << 20));
  spdlog::warn("{}", line);
}

void Distiller::apply_sizes() {
  students_.options = options_.settings.hkr_options();
  for (auto& [name, layer] : layers_) layer.student->layer->options() = students_.options;
}

}  // namespace vkflux
