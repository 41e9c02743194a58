#include "model/flux/transformer.h"

#include <fmt/format.h>

#include "autograd/tape.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kTimeFeatures = 256;

void expect_shape(const char* name, const Tensor& x, const Shape& want) {
  if (!x.defined()) throw Error(ErrorCode::invalid_argument, fmt::format("FLUX.1 input {} is missing", name));
  if (!(x.shape() == want)) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("FLUX.1 input {} is {}, expected {}", name, x.shape().str(), want.str()));
  }
}

}  // namespace

Flux1::Flux1(const Flux1Config& config)
    : config_(config),
      img_in_{config.in_channels, config.hidden},
      txt_in_{config.context_in_dim, config.hidden},
      time_in_(kTimeFeatures, config.hidden),
      vector_in_(config.vec_in_dim, config.hidden),
      guidance_in_(kTimeFeatures, config.hidden),
      final_(config) {
  config_.check();
  for (int64_t i = 0; i < config.depth; ++i) double_.emplace_back(config);
  for (int64_t i = 0; i < config.depth_single; ++i) single_.emplace_back(config);
}

void Flux1::check(const Flux1Inputs& in) const {
  if (!in.img.defined() || in.img.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.1 input img must be [batch, tokens, channels]");
  }
  if (!in.txt.defined() || in.txt.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.1 input txt must be [batch, tokens, channels]");
  }
  const int64_t batch = in.img.dim(0), tokens = in.txt.dim(1) + in.img.dim(1);
  expect_shape("img", in.img, {batch, in.img.dim(1), config_.in_channels});
  expect_shape("txt", in.txt, {batch, in.txt.dim(1), config_.context_in_dim});
  expect_shape("y", in.y, {batch, config_.vec_in_dim});
  expect_shape("t", in.t, {batch});
  if (config_.guidance) expect_shape("guidance", in.guidance, {batch});
  const int64_t rope_batch = in.rope.defined() && in.rope.rank() == 4 && in.rope.dim(0) == 1 ? 1 : batch;
  expect_shape("rope", in.rope, {rope_batch, tokens, config_.head_dim / 2, 2});
}

Tensor Flux1::conditioning(const Flux1Inputs& in, Trace* trace) const {
  const Tensor features = op::timestep_embedding(in.t, kTimeFeatures);
  const Tensor time = time_in_(features), vector = vector_in_(in.y);
  observe(trace, "timestep_embedding", features);
  observe(trace, "time_in", time);
  observe(trace, "vector_in", vector);
  Tensor vec = time;
  if (config_.guidance) {
    vec = op::add(vec, guidance_in_(op::timestep_embedding(in.guidance, kTimeFeatures)));
  }
  vec = op::add(vec, vector);
  observe(trace, "vec", vec);
  return vec;
}

DoubleBlock::Streams Flux1::run_double(size_t i, const DoubleBlock::Streams& x, const BlockContext& context) {
  DoubleBlock& block = double_[i];
  const int layer = static_cast<int>(i);
  if (!checkpointing_) return block(x, context, layer);
  const auto fn = [&block, context, layer](const std::vector<Tensor>& in) {
    BlockContext inner = context;
    inner.silu_vec = in[2];
    const DoubleBlock::Streams y = block({in[0], in[1]}, inner, layer);
    return std::vector<Tensor>{y.img, y.txt};
  };
  const std::vector<Tensor> y = checkpoint(fn, {x.img, x.txt, context.silu_vec}, tensors(parameters(block)));
  return {y[0], y[1]};
}

Tensor Flux1::run_single(size_t i, const Tensor& x, const BlockContext& context) {
  SingleBlock& block = single_[i];
  const int index = static_cast<int>(i), first = static_cast<int>(double_.size());
  if (!checkpointing_) return block(x, context, index, first);
  const auto fn = [&block, context, index, first](const std::vector<Tensor>& in) {
    BlockContext inner = context;
    inner.silu_vec = in[1];
    return std::vector<Tensor>{block(in[0], inner, index, first)};
  };
  return checkpoint(fn, {x, context.silu_vec}, tensors(parameters(block)))[0];
}

Flux1::Pass Flux1::begin(const Flux1Inputs& in, Trace* trace) {
  check(in);
  const ProfileScope scope(in.img.device().profiler(), "embeddings");
  Pass p{{op::silu(conditioning(in, trace)), in.rope, in.tokens, in.step, &attention_, trace},
         {img_in_(in.img), txt_in_(in.txt)},
         {}};
  p.context.tokens.text = in.txt.dim(1);
  p.context.tokens.image = in.img.dim(1);
  observe(trace, "img_in", p.streams.img);
  observe(trace, "txt_in", p.streams.txt);
  return p;
}

void Flux1::join(Pass& p) const {
  p.x = op::concat({p.streams.txt, p.streams.img}, 1);
  if (!p.context.in_place) p.streams = {};
}

void Flux1::layer(int index, Pass& p) {
  Profiler& profiler = p.context.silu_vec.device().profiler();
  const int single = index - double_layers();
  const ProfileScope scope(profiler, single < 0 ? "double_blocks" : "single_blocks",
                           single < 0 ? index : single);
  if (single < 0) {
    p.streams = run_double(static_cast<size_t>(index), p.streams, p.context);
  } else {
    p.x = run_single(static_cast<size_t>(single), p.x, p.context);
  }
}

Tensor Flux1::finish(const Pass& p) const {
  const Tensor& any = p.context.silu_vec;
  const ProfileScope scope(any.device().profiler(), "final_layer");
  if (single_.empty()) return final_(p.streams.img, p.context.silu_vec);
  const Tensor img = op::narrow(p.x, 1, p.context.tokens.text, p.context.tokens.image);
  // Of one picture they are dense where they lie.
  return final_(img.dim(0) == 1 ? img : op::clone(img), p.context.silu_vec);
}

Tensor Flux1::forward(const Flux1Inputs& in, Trace* trace) {
  Pass pass = begin(in, trace);
  for (int i = 0; i < layers(); ++i) {
    if (i == double_layers()) join(pass);
    layer(i, pass);
  }
  return finish(pass);
}

InitRule flux1_init() {
  return [](const Param& p) -> Init {
    const auto has = [&](std::string_view part) { return p.name.find(part) != std::string::npos; };
    if (has("_norm.scale")) return {Init::Kind::constant, 1};
    if (p.shape.rank() < 2 || has("mod.lin") || has("modulation") || has("final_layer")) return {};
    if (has("time_in") || has("vector_in") || has("guidance_in")) return {Init::Kind::normal, 0.02f};
    return xavier_uniform(p.shape);
  };
}

const StorageRules& flux1_storage() {
  static const StorageRules rules{
      {"img_in.", "txt_in.", "time_in.", "vector_in.", "guidance_in.", "final_layer."},
      {"_mod.lin.", "modulation.lin."}};
  return rules;
}

RowSplit flux1_row_split(const Flux1Config& c) {
  return [h = c.hidden, mlp = c.mlp_hidden](const Param& p) -> std::vector<int64_t> {
    if (p.name.find(".linear1.") != std::string::npos) return {h, h, h, mlp};
    return {};
  };
}

}  // namespace vkflux
