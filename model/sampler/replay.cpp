#include "model/sampler/replay.h"

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

std::vector<const Tensor*> tensors_of(const PassInputs& in) {
  std::vector<const Tensor*> out;
  PassInputs::visit(in, [&](const char*, const Tensor& x, bool) { out.push_back(&x); });
  return out;
}

}  // namespace

Replay::~Replay() {
  reset();
}

void Replay::reset() {
  for (Segment* s : {&begin_, &finish_}) *s = {};
  around_.clear();
  layers_.clear();
  pass_.reset();
  output_ = {};
  in_ = {};
  if (region_) device_->pool().close_region(region_);
  region_ = 0;
}

uint64_t Replay::recorded_bytes() const {
  return region_ ? device_->pool().region_usage(region_).reserved : 0;
}

size_t Replay::recordings() const {
  size_t n = 0;
  for (const Segment* s : {&begin_, &finish_}) n += s->recording != nullptr;
  for (const auto& [part, s] : around_) n += s.recording != nullptr;
  for (const auto& [key, s] : layers_) n += s.recording != nullptr;
  return n;
}

bool Replay::possible(const PassInputs& in) const {
  if (failures_ >= kMaxFailures || !in.x.defined() || !Recording::supported(in.x.device())) return false;
  for (const Tensor* x : tensors_of(in)) {
    if (x->defined() && !x->is_contiguous()) return false;
  }
  return !in.x.device().profiler().enabled() && !(in.attention && in.attention->tapped()) &&
         !Tape::recording();
}

/// The recordings fit these inputs.
bool Replay::current(const PassInputs& in) const {
  if (!region_ || attention_ != in.attention || views_generation_ != device_->pool().views_generation() ||
      in.tokens.rows != in_.tokens.rows || in.tokens.columns != in_.tokens.columns || in.kept != in_.kept) {
    return false;
  }
  const std::vector<const Tensor*> now = tensors_of(in), held = tensors_of(in_);
  if (now.size() != held.size()) return false;
  for (size_t i = 0; i < now.size(); ++i) {
    if (!same_form(*now[i], *held[i])) return false;
  }
  return true;
}

void Replay::start(const PassInputs& in) {
  reset();
  device_ = &in.x.device();
  region_ = device_->pool().open_region();
  attention_ = in.attention;
  views_generation_ = device_->pool().views_generation();
  in_ = in;
  in_.attention = nullptr;  // each pass decides anew who serves
  fed_.clear();
  PassInputs::visit(in_, [&](const char*, Tensor& x, bool) {
    x = twin(x);
    fed_.push_back(0);
  });
}

void Replay::feed(const PassInputs& in) {
  const std::vector<const Tensor*> from = tensors_of(in);
  size_t i = 0;
  PassInputs::visit(in_, [&](const char*, const Tensor& to, bool changes) {
    const Tensor& x = *from[i];
    if (changes || fed_[i] != x.id()) copy_into(to, x);
    fed_[i++] = x.id();
  });
  const auto numbers = in_.step.numbers;
  in_.step = in.step;
  in_.step.numbers = numbers;
}

// False: the work can't be recorded, but was done.
template <class Work>
bool Replay::record_or_replay(Segment& segment, const Work& work) {
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

void Replay::run_layer(size_t part, int layer) {
  const AttentionKind kind = pass_->attention.kind(layer);
  Segment& segment = layers_[{layer, kind}];
  if (segment.failures >= kMaxFailures || !pass_->attention.recordable(layer, pass_->tokens, pass_->step)) {
    model_.run(part, *pass_);
    return;
  }
  const uint64_t before = device_->pool().region_usage(region_).used;
  if (!record_or_replay(segment, [&] { model_.run(part, *pass_); })) {
    segment.recording.reset();
    ++segment.failures;
  }
  // Later passes would write over what was kept.
  if (device_->pool().region_usage(region_).used != before) {
    throw Error(ErrorCode::internal,
                fmt::format("the {} attention of {} keeps a temporary tensor: it must not be recordable()",
                            name(kind), model_.parts()[part].name));
  }
}

Tensor Replay::forward(const PassInputs& in) {
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

Tensor Replay::recorded(const PassInputs& in) {
  if (!current(in)) start(in);
  feed(in);
  bool good = record_or_replay(begin_, [&] { pass_ = model_.begin(in_, true); });
  pass_->step = in_.step;
  if (in.attention) pass_->attention = in.attention->pass(in.x.dim(0), pass_->tokens);
  for (size_t i = 0; i < model_.parts().size(); ++i) {
    const int layer = model_.parts()[i].layer;
    model_.acquire(i);
    if (layer >= 0) {
      run_layer(i, layer);
    } else {
      good = record_or_replay(around_[i], [&] { model_.run(i, *pass_); }) && good;
    }
  }
  good = record_or_replay(finish_, [&] { output_ = model_.finish(*pass_); }) && good;
  const Tensor out = twin(output_);
  copy_into(out, output_);
  if (!good) {
    ++failures_;
    reset();
  }
  return out;
}

}  // namespace vkflux
