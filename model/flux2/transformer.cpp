#include "model/flux2/transformer.h"

#include <fmt/format.h>

#include "autograd/tape.h"
#include "model/flux2/rope.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kAxes = 4;  // of an id

void expect_shape(const char* name, const Tensor& x, const Shape& want) {
  expect_input("FLUX.2", name, x, want);
}

/// The axes that a transformer turns by, of four for each token.
std::vector<float> first_axes(std::vector<float> ids, size_t axes) {
  if (axes == kAxes) return ids;
  std::vector<float> out;
  for (size_t at = 0; at + kAxes <= ids.size(); at += kAxes)
    out.insert(out.end(), ids.begin() + static_cast<ptrdiff_t>(at),
               ids.begin() + static_cast<ptrdiff_t>(at + axes));
  return out;
}

std::vector<Tensor> concat(const std::vector<std::vector<Tensor>>& lists) {
  std::vector<Tensor> out;
  for (const auto& list : lists) out.insert(out.end(), list.begin(), list.end());
  return out;
}

std::vector<Tensor> slice(const std::vector<Tensor>& list, size_t first, size_t n) {
  const auto begin = list.begin() + static_cast<ptrdiff_t>(first);
  return {begin, begin + static_cast<ptrdiff_t>(n)};
}

}  // namespace

struct Flux2::State final : JointPass {
  // [B, H] of what all blocks of a kind share: shift, scale, gate, twice for the streams.
  std::vector<Tensor> mod_img, mod_txt, mod_single;
  std::shared_ptr<const std::vector<KeysValues>> held;  // what `kept` points to
};

BackboneLayout flux2_layout(const Flux2Config& c) {
  BackboneLayout out;
  out.family = "flux2";
  out.layers = joint_layers(c.depth, c.depth_single, c.heads, c.head_dim);
  out.geometry = {c.channels, 1};
  out.guidance = c.guidance;
  return out;
}

Flux2::Flux2(const Flux2Config& config)
    : Backbone(flux2_layout(config)),
      config_(config),
      parts_(joint_parts(layout())),
      img_in_{config.channels, config.hidden, false},
      txt_in_{config.context_in_dim, config.hidden, false},
      mod_img_{config.hidden, 6 * config.hidden, false},
      mod_txt_{config.hidden, 6 * config.hidden, false},
      mod_single_{config.hidden, 3 * config.hidden, false},
      time_in_(config.time_features, config.hidden, false),
      guidance_in_(config.time_features, config.hidden, false),
      final_(config.hidden, config.channels, false, static_cast<float>(config.eps)) {
  config_.check();
  for (int64_t i = 0; i < config.depth; ++i) double_.emplace_back(config);
  for (int64_t i = 0; i < config.depth_single; ++i) single_.emplace_back(config);
}

Tensor Flux2::rope(Device& device, std::vector<float> ids, int64_t batch,
                   const std::vector<float>& periods) const {
  const size_t axes = config_.axes_dim.size();
  return rope_table(device, first_axes(std::move(ids), axes), batch, config_.axes_dim, config_.theta,
                    first_axes(periods, axes));
}

void Flux2::prepare(PassInputs& in, std::span<const float> ids) {
  const int64_t references = in.tokens.reference_tokens(), drawn = in.x.dim(1);
  const bool keep = keep_references_ && references > 0;
  in.tokens.text = in.condition["txt"].dim(1);
  in.tokens.image = drawn + (keep ? 0 : references);
  in.tokens.kept = keep ? references : 0;
  Device& device = in.x.device();
  const bool plain = ids.empty() && references == 0 && !in.tokens.wrap_rows && !in.tokens.wrap_columns;
  const std::array<int64_t, 3> grid{in.tokens.text, in.tokens.rows, in.tokens.columns};
  if (plain && positions_.defined() && &positions_.device() == &device && grid_ == grid) {
    in.positions = positions_;
    return;
  }
  in.positions = ids.empty() ? rope(device, flux2_ids(in.tokens), 1, flux2_periods(in.tokens))
                             : rope(device, {ids.begin(), ids.end()}, in.x.dim(0));
  if (plain) {
    positions_ = in.positions;
    grid_ = grid;
  }
  if (!keep) return;
  const int64_t own = in.tokens.text + drawn;
  const Tensor all = in.positions;
  in.positions = op::clone(all.slice(1, 0, own));
  in.kept = std::make_shared<std::vector<KeysValues>>(
      read_references(in, op::clone(all.slice(1, own, references))));
}

std::vector<KeysValues> Flux2::read_references(const PassInputs& in, const Tensor& positions) {
  const Tensor tokens = in.condition[kReferenceTokens];
  expect_shape("reference tokens", tokens, {in.x.dim(0), in.tokens.kept, config_.channels});
  PassInputs clean = in;
  clean.t = Tensor::zeros(in.x.device(), {in.x.dim(0)});
  std::vector<KeysValues> out;
  State p;
  modulate(p, clean, nullptr);
  p.rope = positions;
  p.tokens.image = in.tokens.kept;
  p.keeping = &out;
  Tensor x = img_in_(tokens);
  const auto doubles = static_cast<int>(double_.size());
  for (size_t i = 0; i < parts_.size(); ++i) {
    const int layer = parts_[i].layer;
    if (layer < 0) continue;
    acquire(i);
    const auto at = static_cast<size_t>(layer);
    x = layer < doubles ? double_[at].alone(x, p, p.mod_img, layer)
                        : single_[at - double_.size()](x, p, p.mod_single, layer - doubles, doubles);
  }
  return out;
}

void Flux2::check(const PassInputs& in) const {
  const Tensor txt = in.condition["txt"];
  if (!in.x.defined() || in.x.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.2 input x must be [batch, tokens, channels]");
  }
  if (!txt.defined() || txt.rank() != 3) {
    throw Error(ErrorCode::invalid_argument, "FLUX.2 input txt must be [batch, tokens, channels]");
  }
  if (in.condition[kExtraChannels].defined()) {
    throw Error(ErrorCode::invalid_argument,
                "FLUX.2 reads pictures as reference tokens, not as further channels of its tokens");
  }
  const int64_t batch = in.x.dim(0);
  const int64_t tokens = txt.dim(1) + in.x.dim(1) + (in.tokens.kept > 0 ? 0 : in.tokens.reference_tokens());
  expect_shape("x", in.x, {batch, in.x.dim(1), config_.channels});
  expect_shape("txt", txt, {batch, txt.dim(1), config_.context_in_dim});
  expect_shape("t", in.t, {batch});
  if (config_.guidance) expect_shape("guidance", in.guidance, {batch});
  const int64_t positions_batch =
      in.positions.defined() && in.positions.rank() == 4 && in.positions.dim(0) == 1 ? 1 : batch;
  expect_shape("positions", in.positions, {positions_batch, tokens, config_.head_dim / 2, 2});
}

Tensor Flux2::conditioning(const PassInputs& in, Trace* trace) const {
  const Tensor features = op::timestep_embedding(in.t, config_.time_features);
  Tensor vec = time_in_(features);
  observe(trace, "timestep_embedding", features);
  observe(trace, "time_in", vec);
  if (config_.guidance)
    vec = op::add(vec, guidance_in_(op::timestep_embedding(in.guidance, config_.time_features)));
  observe(trace, "vec", vec);
  return vec;
}

void Flux2::modulate(State& p, const PassInputs& in, Trace* trace) const {
  p.silu_vec = op::silu(conditioning(in, trace));
  const auto shared = [&](const char* name, const Linear& lin, int64_t parts) {
    const Tensor all = lin(p.silu_vec);
    observe(trace, name, all);
    return modulation(all, parts);
  };
  if (!double_.empty()) {
    p.mod_img = shared("double_stream_modulation_img", mod_img_, 6);
    p.mod_txt = shared("double_stream_modulation_txt", mod_txt_, 6);
  }
  if (!single_.empty()) p.mod_single = shared("single_stream_modulation", mod_single_, 3);
}

std::unique_ptr<Pass> Flux2::embed(const PassInputs& in, Trace* trace) {
  check(in);
  const ProfileScope scope(in.x.device().profiler(), "embeddings");
  auto p = std::make_unique<State>();
  modulate(*p, in, trace);
  p->rope = in.positions;
  p->streams = {img_in_(in.tokens.kept > 0 ? in.x : input(in)), txt_in_(in.condition["txt"])};
  p->tokens = in.tokens;
  p->tokens.text = p->streams.txt.dim(1);
  p->tokens.image = p->streams.img.dim(1);
  if (in.tokens.kept > 0) {
    p->tokens.references.clear();  // none of them is among the pass's tokens
    p->kept = in.kept.get();
    p->held = in.kept;
  }
  observe(trace, "img_in", p->streams.img);
  observe(trace, "txt_in", p->streams.txt);
  return p;
}

Streams Flux2::run_double(size_t i, const State& p) {
  Flux2DoubleBlock& block = double_[i];
  const int layer = static_cast<int>(i);
  if (!checkpointing_) return block(p.streams, p, p.mod_img, p.mod_txt, layer);
  const BlockContext& context = p;
  const auto fn = [&block, context, layer](const std::vector<Tensor>& in) {
    const Streams y = block({in[0], in[1]}, context, slice(in, 2, 6), slice(in, 8, 6), layer);
    return std::vector<Tensor>{y.img, y.txt};
  };
  const std::vector<Tensor> y = checkpoint(fn, concat({{p.streams.img, p.streams.txt}, p.mod_img, p.mod_txt}),
                                           tensors(parameters(block)));
  return {y[0], y[1]};
}

Tensor Flux2::run_single(size_t i, const State& p) {
  Flux2SingleBlock& block = single_[i];
  const int index = static_cast<int>(i), first = static_cast<int>(double_.size());
  if (!checkpointing_) return block(p.joined, p, p.mod_single, index, first);
  const BlockContext& context = p;
  const auto fn = [&block, context, index, first](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{block(in[0], context, slice(in, 1, 3), index, first)};
  };
  return checkpoint(fn, concat({{p.joined}, p.mod_single}), tensors(parameters(block)))[0];
}

void Flux2::run(size_t part, Pass& pass) {
  State& p = static_cast<State&>(pass);
  const int layer = parts_[part].layer;
  if (layer < 0) return p.join();
  Profiler& profiler = p.silu_vec.device().profiler();
  const auto doubles = static_cast<int>(double_.size());
  if (layer < doubles) {
    const ProfileScope scope(profiler, "double_blocks", layer);
    p.streams = run_double(static_cast<size_t>(layer), p);
  } else {
    const ProfileScope scope(profiler, "single_blocks", layer - doubles);
    p.joined = run_single(static_cast<size_t>(layer - doubles), p);
  }
}

Tensor Flux2::finish(Pass& pass) {
  const State& p = static_cast<const State&>(pass);
  const ProfileScope scope(p.silu_vec.device().profiler(), "final_layer");
  return final_(p.drawn(), p.silu_vec);
}

InitRule flux2_init() {
  return [](const Param& p) -> Init {
    const auto has = [&](std::string_view part) { return p.name.find(part) != std::string::npos; };
    if (has("_norm.scale")) return {Init::Kind::constant, 1};
    if (has("modulation") || has("final_layer")) return {};
    if (has("time_in") || has("guidance_in")) return {Init::Kind::normal, 0.02f};
    return xavier_uniform(p.shape);
  };
}

const StorageRules& flux2_storage() {
  static const StorageRules rules{
      {"img_in.", "txt_in.", "time_in.", "guidance_in.", "final_layer."}, {"_modulation"}, {}};
  return rules;
}

}  // namespace vkflux
