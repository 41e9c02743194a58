#include "model/flux/replay.h"

#include <fmt/format.h>

#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int kMaxFailures = 2;

bool same_form(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && a.dtype() == b.dtype();
}

Tensor twin(const Tensor& x) {
  return x.defined() ? Tensor::empty(x.device(), x.shape(), x.dtype()) : Tensor();
}

void copy_into(const Tensor& to, const Tensor& from) {
  if (!to.defined() || to.numel() == 0) return;
  to.device().stream().copy(to.range(), from.range());
}

bool contiguous(const Tensor& x) {
  return !x.defined() || x.is_contiguous();
}

}  // namespace

Flux1Replay::~Flux1Replay() {
  reset();
}

void Flux1Replay::reset() {
  for (Segment* s : {&begin_, &join_, &finish_}) *s = {};
  layers_.clear();
  pass_.reset();
  velocity_ = {};
  in_ = {};
  if (region_) device_->pool().close_region(region_);
  region_ = 0;
}

uint64_t Flux1Replay::recorded_bytes() const {
  return region_ ? device_->pool().region_usage(region_).reserved : 0;
}

size_t Flux1Replay::recordings() const {
  size_t n = 0;
  for (const Segment* s : {&begin_, &join_, &finish_}) n += s->recording != nullptr;
  for (const auto& [key, s] : layers_) n += s.recording != nullptr;
  return n;
}

bool Flux1Replay::possible(const Flux1Inputs& in) const {
  if (failures_ >= kMaxFailures || !in.img.defined() || !Recording::supported(in.img.device())) return false;
  for (const Tensor* x :
       {&in.img, &in.txt, &in.y, &in.t, &in.guidance, &in.rope, &in.tokens.key_mask, &in.step.scalars}) {
    if (!contiguous(*x)) return false;
  }
  return !in.img.device().profiler().enabled() && !model_.attention().tapped() && !Tape::recording();
}

/// The recordings fit these inputs and the strategies of now.
bool Flux1Replay::current(const Flux1Inputs& in) const {
  return region_ && bank_version_ == model_.attention().version() &&
         views_generation_ == device_->pool().views_generation() && same_form(in.img, in_.img) &&
         same_form(in.txt, in_.txt) && same_form(in.y, in_.y) && same_form(in.t, in_.t) &&
         same_form(in.guidance, in_.guidance) && same_form(in.rope, in_.rope) &&
         same_form(in.tokens.key_mask, in_.tokens.key_mask) && same_form(in.step.scalars, in_.step.scalars) &&
         in.tokens.rows == in_.tokens.rows && in.tokens.columns == in_.tokens.columns;
}

void Flux1Replay::start(const Flux1Inputs& in) {
  reset();
  device_ = &in.img.device();
  region_ = device_->pool().open_region();
  model_.attention().prepare(*device_);
  bank_version_ = model_.attention().version();
  views_generation_ = device_->pool().views_generation();
  in_ = in;
  for (Tensor* x : {&in_.img, &in_.txt, &in_.y, &in_.t, &in_.guidance, &in_.rope, &in_.tokens.key_mask,
                    &in_.step.scalars}) {
    *x = twin(*x);
  }
  constant_ = {};
}

void Flux1Replay::feed(const Flux1Inputs& in) {
  copy_into(in_.img, in.img);
  copy_into(in_.t, in.t);
  copy_into(in_.step.scalars, in.step.scalars);
  const std::array<std::pair<const Tensor*, const Tensor*>, 5> constant{
      {{&in_.txt, &in.txt},
       {&in_.y, &in.y},
       {&in_.guidance, &in.guidance},
       {&in_.rope, &in.rope},
       {&in_.tokens.key_mask, &in.tokens.key_mask}}};
  for (size_t i = 0; i < constant.size(); ++i) {
    const auto [to, from] = constant[i];
    if (constant_[i] == from->id()) continue;
    copy_into(*to, *from);
    constant_[i] = from->id();
  }
  const Tensor scalars = in_.step.scalars;
  in_.step = in.step;
  in_.step.scalars = scalars;
}

// False: the work can't be recorded, but was done.
template <class Work>
bool Flux1Replay::record_or_replay(Segment& segment, const Work& work) {
  if (segment.recording && segment.recording->replayable()) {
    device_->stream().replay(*segment.recording);
    return true;
  }
  segment.recording = std::make_unique<Recording>(*device_);
  const RegionScope memory(device_->pool(), region_);
  {
    const RecordingScope scope(device_->stream(), *segment.recording);
    work();
  }
  return segment.recording->replayable();
}

void Flux1Replay::run_layer(int index) {
  AttentionBank& bank = model_.attention();
  const Flux1Config& c = model_.config();
  const Tensor& any = in_.img;
  const Shape heads{any.dim(0), c.heads, in_.txt.dim(1) + any.dim(1), c.head_dim};
  const Tensor q = any.with_strides(heads, heads).key();
  const AttentionCall call{q, q, q, pass_->context.tokens, index, pass_->context.step};
  const AttentionKind kind = bank.planned(call);
  Segment& segment = layers_[{index, kind}];
  if (segment.failures >= kMaxFailures || !bank.find(index, kind)->recordable(call)) {
    model_.layer(index, *pass_);
    return;
  }
  const bool known = segment.recording && segment.recording->replayable();
  const uint64_t before = device_->pool().region_usage(region_).used;
  if (!record_or_replay(segment, [&] { model_.layer(index, *pass_); })) {
    segment.recording.reset();
    ++segment.failures;
  }
  if (known) bank.replayed(index);
  // Later passes would write over what was kept.
  if (device_->pool().region_usage(region_).used != before) {
    throw Error(ErrorCode::internal,
                fmt::format("the {} attention of layer {} keeps a temporary tensor: it must not be "
                            "recordable()",
                            name(kind), index));
  }
}

Tensor Flux1Replay::forward(const Flux1Inputs& in) {
  if (!possible(in)) return model_.forward(in);
  if (!warm_) {  // makes the pipelines, and the tables that strategies keep
    warm_ = true;
    return model_.forward(in);
  }
  try {
    return recorded(in);
  } catch (const Error& e) {
    if (e.code() != ErrorCode::out_of_device_memory) throw;
  }
  // Eager passes share their memory with everything else.
  failures_ = kMaxFailures;
  reset();
  return model_.forward(in);
}

Tensor Flux1Replay::recorded(const Flux1Inputs& in) {
  if (!current(in)) start(in);
  feed(in);
  bool good = record_or_replay(begin_, [&] {
    pass_ = model_.begin(in_);
    pass_->context.in_place = true;
  });
  pass_->context.step = in_.step;
  for (int i = 0; i < model_.layers(); ++i) {
    if (i == model_.double_layers()) good = record_or_replay(join_, [&] { model_.join(*pass_); }) && good;
    run_layer(i);
  }
  good = record_or_replay(finish_, [&] { velocity_ = model_.finish(*pass_); }) && good;
  const Tensor out = twin(velocity_);
  copy_into(out, velocity_);
  if (!good) {
    ++failures_;
    reset();
  }
  return out;
}

}  // namespace vkflux
