#include "model/flux/transformer.h"

#include <fmt/format.h>

#include "autograd/tape.h"
#include "model/flux/rope.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kTimeFeatures = 256;

void expect_shape(const char* name, const Tensor& x, const Shape& want) {
  expect_input("FLUX.1", name, x, want);
}

}  // namespace

BackboneLayout flux1_layout(const Flux1Config& c) {
  BackboneLayout out;
  out.family = "flux1";
  out.layers = joint_layers(c.depth, c.depth_single, c.heads, c.head_dim);
  out.geometry = {c.out_channels / 4, 2};
  out.guidance = c.guidance;
  return out;
}

Flux1::Flux1(const Flux1Config& config)
    : Backbone(flux1_layout(config)),
      config_(config),
      parts_(joint_parts(layout())),
      img_in_{config.in_channels, config.hidden},
      txt_in_{config.context_in_dim, config.hidden},
      time_in_(kTimeFeatures, config.hidden),
      vector_in_(config.vec_in_dim, config.hidden),
      guidance_in_(kTimeFeatures, config.hidden),
      final_(config.hidden, config.out_channels) {
  config_.check();
  for (int64_t i = 0; i < config.depth; ++i) double_.emplace_back(config);
  for (int64_t i = 0; i < config.depth_single; ++i) single_.emplace_back(config);
}

void Flux1::prepare(PassInputs& in, std::span<const float> ids) {
  const Tensor txt = in.condition["txt"];
  in.tokens.text = txt.dim(1);
  in.tokens.image = in.x.dim(1) + in.tokens.reference_tokens();
  Device& device = in.x.device();
  if (!ids.empty()) {
    in.positions = rope_table(device, ids, in.x.dim(0), config_.axes_dim, config_.theta);
    return;
  }
  if (!in.tokens.references.empty() || in.tokens.wrap_rows || in.tokens.wrap_columns) {
    in.positions = rope_table(device, flux1_ids(in.tokens), 1, config_.axes_dim, config_.theta,
                              flux1_periods(in.tokens));
    return;
  }
  const std::array<int64_t, 3> grid{in.tokens.text, in.tokens.rows, in.tokens.columns};
  if (!positions_.defined() || &positions_.device() != &device || grid_ != grid) {
    positions_ = rope_table(device, flux1_ids(in.tokens), 1, config_.axes_dim, config_.theta);
    grid_ = grid;
  }
  in.positions = positions_;
}

void Flux1::check(const PassInputs& in) const {
  const Tensor txt = in.condition["txt"];
  if (!in.x.defined() || in.x.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.1 input x must be [batch, tokens, channels]");
  }
  if (!txt.defined() || txt.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.1 input txt must be [batch, tokens, channels]");
  }
  const Tensor extra = in.condition[kExtraChannels];
  const int64_t batch = in.x.dim(0), given = extra.defined() && extra.rank() == 3 ? extra.dim(2) : 0;
  const int64_t tokens = txt.dim(1) + in.x.dim(1) + in.tokens.reference_tokens();
  if (given == 0 && in.x.dim(2) == config_.out_channels && config_.in_channels > config_.out_channels) {
    throw Error(
        ErrorCode::unsupported,
        "this Fill or control transformer reads a picture besides the noise, and got none: only `vkflux "
        "sample` gives it one (--init and --mask, or --control)");
  }
  expect_shape("x", in.x, {batch, in.x.dim(1), config_.in_channels - given});
  expect_shape("txt", txt, {batch, txt.dim(1), config_.context_in_dim});
  expect_shape("y", in.condition["y"], {batch, config_.vec_in_dim});
  expect_shape("t", in.t, {batch});
  if (config_.guidance) expect_shape("guidance", in.guidance, {batch});
  const int64_t positions_batch =
      in.positions.defined() && in.positions.rank() == 4 && in.positions.dim(0) == 1 ? 1 : batch;
  expect_shape("positions", in.positions, {positions_batch, tokens, config_.head_dim / 2, 2});
}

Tensor Flux1::conditioning(const PassInputs& in, Trace* trace) const {
  const Tensor features = op::timestep_embedding(in.t, kTimeFeatures);
  const Tensor time = time_in_(features), vector = vector_in_(in.condition["y"]);
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

Streams Flux1::run_double(size_t i, const Streams& x, const BlockContext& context) {
  DoubleBlock& block = double_[i];
  const int layer = static_cast<int>(i);
  if (!checkpointing_) return block(x, context, layer);
  const auto fn = [&block, context, layer](const std::vector<Tensor>& in) {
    BlockContext inner = context;
    inner.silu_vec = in[2];
    const Streams y = block({in[0], in[1]}, inner, layer);
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

std::unique_ptr<Pass> Flux1::embed(const PassInputs& in, Trace* trace) {
  check(in);
  const ProfileScope scope(in.x.device().profiler(), "embeddings");
  auto p = std::make_unique<JointPass>();
  p->silu_vec = op::silu(conditioning(in, trace));
  p->rope = in.positions;
  p->streams = {img_in_(input(in)), txt_in_(in.condition["txt"])};
  p->tokens = in.tokens;
  p->tokens.text = p->streams.txt.dim(1);
  p->tokens.image = p->streams.img.dim(1);
  observe(trace, "img_in", p->streams.img);
  observe(trace, "txt_in", p->streams.txt);
  return p;
}

void Flux1::run(size_t part, Pass& pass) {
  JointPass& p = static_cast<JointPass&>(pass);
  const int layer = parts_[part].layer;
  if (layer < 0) return p.join();
  Profiler& profiler = p.silu_vec.device().profiler();
  const auto doubles = static_cast<int>(double_.size());
  if (layer < doubles) {
    const ProfileScope scope(profiler, "double_blocks", layer);
    p.streams = run_double(static_cast<size_t>(layer), p.streams, p);
  } else {
    const ProfileScope scope(profiler, "single_blocks", layer - doubles);
    p.joined = run_single(static_cast<size_t>(layer - doubles), p.joined, p);
  }
}

Tensor Flux1::finish(Pass& pass) {
  const JointPass& p = static_cast<const JointPass&>(pass);
  const ProfileScope scope(p.silu_vec.device().profiler(), "final_layer");
  return final_(p.drawn(), p.silu_vec);
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
      {"_mod.lin.", "modulation.lin."},
      {}};
  return rules;
}

RowSplit flux1_row_split(const Flux1Config& c) {
  return [h = c.hidden, mlp = c.mlp_hidden](const Param& p) -> std::vector<int64_t> {
    if (p.name.find(".linear1.") != std::string::npos) return {h, h, h, mlp};
    return {};
  };
}

}  // namespace vkflux
