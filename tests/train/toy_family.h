// A family of models that is nothing like FLUX.1 and known in this file alone.
//
// It has no text encoder: a prompt is a class by its first letter, one token in front of the picture's. It
// has no double blocks, positions are added to the tokens, a norm lies between its layers, and a latent is
// the picture a quarter as wide and high, one token a cell.
#pragma once

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "model/family.h"
#include "model/io/safetensors.h"
#include "model/layers.h"
#include "model/load.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux::test {

constexpr int64_t kToyHeads = 2, kToyHead = 16, kToyHidden = kToyHeads * kToyHead, kToyClasses = 8,
                  kToyTimeFeatures = 32, kToyCell = 4;
constexpr float kToyEps = 1e-6f;

inline BackboneLayout toy_layout(int64_t heads = kToyHeads) {
  BackboneLayout out;
  out.family = "toy";
  for (int i = 0; i < 3; ++i) out.layers.push_back({"layers." + std::to_string(i), heads, kToyHead, i > 0});
  out.geometry = {3, 1};
  return out;
}

inline ModelInfo toy_info() {
  SamplingDefaults d;
  d.steps = 4;
  d.width = d.height = 16;
  return {toy_layout(), kToyCell, Schedule::flux1_schnell(), d};
}

/// Of this family's kind of condition: class [B, kToyClasses], 1 at the first letter's place, nothing for no
/// prompt.
inline Condition toy_condition(const std::vector<std::string>& prompts) {
  std::vector<float> host(prompts.size() * kToyClasses, 0.0f);
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (!prompts[i].empty())
      host[i * kToyClasses + static_cast<unsigned char>(prompts[i][0]) % kToyClasses] = 1;
  }
  return {{"class", Tensor::from(device(), std::span<const float>(host),
                                 {static_cast<int64_t>(prompts.size()), kToyClasses})}};
}

/// Attention alone, with a norm that the noise level scales and shifts.
struct ToyLayer {
  Linear shift{kToyHidden, kToyHidden}, scale{kToyHidden, kToyHidden}, gate{kToyHidden, kToyHidden},
      qkv{kToyHidden, 3 * kToyHidden}, proj{kToyHidden, kToyHidden};
  Tensor q_scale = {}, k_scale = {};

  template <class V>
  void visit(V& v) {
    v.child("shift.", shift);
    v.child("scale.", scale);
    v.child("gate.", gate);
    v.child("qkv.", qkv);
    v.child("proj.", proj);
    v("query_norm.scale", q_scale, Shape{kToyHead});
    v("key_norm.scale", k_scale, Shape{kToyHead});
  }
  Tensor operator()(const Tensor& x, const Tensor& level, const Pass& pass, int layer) const {
    const Tensor a = op::layer_norm_modulate(x, shift(level), scale(level), kToyEps);
    const op::Qkv h = op::qk_norm_rope({{qkv(a), q_scale, k_scale}}, {}, kToyHeads);
    const Tensor o = pass.attention.forward({h.q, h.k, h.v, pass.tokens, layer, pass.step});
    return op::gate_residual(x, gate(level), proj(op::merge_heads(o)), pass.in_place ? x : Tensor());
  }
};

class ToyBackbone final : public Backbone {
 public:
  ToyBackbone() : Backbone(toy_layout()) {}

  template <class V>
  void visit(V& v) {
    v.child("class_in.", class_in_);
    v.child("img_in.", img_in_);
    v.child("time_in.", time_in_);
    for (size_t i = 0; i < layers_.size(); ++i) v.child("layers." + std::to_string(i) + ".", layers_[i]);
    v.child("norm.", norm_);
    v.child("out.", out_);
  }

  void prepare(PassInputs& in, std::span<const float> ids) override {
    if (!ids.empty()) throw Error(ErrorCode::unsupported, "the toy's positions are those of a plain picture");
    in.tokens.text = 1;
    in.tokens.image = in.x.dim(1);
    // Sinusoids of the row, then of the column; the class has no place.
    const int64_t tokens = 1 + in.x.dim(1), half = kToyHidden / 2;
    std::vector<float> host(static_cast<size_t>(tokens * kToyHidden), 0.0f);
    for (int64_t i = 1; i < tokens; ++i) {
      const std::array<int64_t, 2> place{(i - 1) / in.tokens.columns, (i - 1) % in.tokens.columns};
      for (int64_t c = 0; c < kToyHidden; ++c) {
        const double angle = static_cast<double>(place[static_cast<size_t>(c / half)]) /
                             std::pow(2.0, static_cast<double>(c % half / 2));
        host[static_cast<size_t>(i * kToyHidden + c)] =
            static_cast<float>(c % 2 ? std::cos(angle) : std::sin(angle));
      }
    }
    in.positions = Tensor::from(in.x.device(), std::span<const float>(host), {1, tokens, kToyHidden});
  }
  const std::vector<PassPart>& parts() const override { return parts_; }
  void run(size_t part, Pass& pass) override {
    State& p = static_cast<State&>(pass);
    const int layer = parts_[part].layer;
    if (layer < 0) {
      p.late = op::layer_norm(p.early, norm_.weight, norm_.bias, kToyEps);
    } else {
      Tensor& x = layer == 0 ? p.early : p.late;
      x = layers_[static_cast<size_t>(layer)](x, p.level, p, layer);
    }
    observe(p.trace, parts_[part].name, layer == 0 ? p.early : p.late);
  }
  Tensor finish(Pass& pass) override {
    const State& p = static_cast<const State&>(pass);
    return out_(op::narrow(p.late, 1, p.tokens.text, p.tokens.image));
  }

 private:
  struct State final : Pass {
    Tensor level;        // [B, hidden]
    Tensor early, late;  // [B, 1 + I, hidden] before and after the norm
  };
  static void expect(const char* name, const Tensor& x, const Shape& want) {
    if (x.defined() && x.shape() == want) return;
    throw Error(ErrorCode::invalid_argument, std::string("toy input ") + name + " must be " + want.str());
  }
  std::unique_ptr<Pass> embed(const PassInputs& in, Trace* /*trace*/) override {
    const int64_t batch = in.x.dim(0), image = in.x.dim(1);
    const Tensor letter = in.condition["class"];
    expect("x", in.x, {batch, image, 3});
    expect("t", in.t, {batch});
    expect("class", letter, {batch, kToyClasses});
    expect("positions", in.positions, {1, 1 + image, kToyHidden});
    auto p = std::make_unique<State>();
    p->tokens = in.tokens;
    p->level = op::silu(time_in_(op::timestep_embedding(in.t, kToyTimeFeatures)));
    const Tensor front = op::reshape(class_in_(letter), {batch, 1, kToyHidden});
    p->early = op::add(op::concat({front, img_in_(in.x)}, 1), in.positions);
    return p;
  }

  std::vector<PassPart> parts_{{"layers.0", 0}, {"norm"}, {"layers.1", 1}, {"layers.2", 2}};
  Linear class_in_{kToyClasses, kToyHidden}, img_in_{3, kToyHidden}, time_in_{kToyTimeFeatures, kToyHidden},
      out_{kToyHidden, 3};
  std::array<ToyLayer, 3> layers_;
  NormAffine norm_{kToyHidden};
};

inline Init toy_init(const Param& p) {
  const bool scale = p.name.find("norm.") != std::string::npos && !p.name.ends_with("bias");
  return scale ? Init{Init::Kind::constant, 1} : Init{Init::Kind::normal, 0.2f};
}

/// A cell is the mean of its pixels, and becomes as many equal ones.
class ToyCodec final : public LatentCodec {
 public:
  Tensor encode(const Tensor& x) const override {
    const int64_t b = x.dim(0), h = x.dim(2) / kToyCell, w = x.dim(3) / kToyCell;
    return op::mean(op::reshape(x, {b, 3, h, kToyCell, w, kToyCell}), {3, 5});
  }
  Tensor decode(const Tensor& latent) const override {
    return op::nhwc_to_nchw(op::upsample_nearest2(op::upsample_nearest2(op::nchw_to_nhwc(latent))));
  }
};

inline std::string toy_weights(const std::string& folder) {
  return folder + "/toy.safetensors";
}

inline void load_toy(Device& device, ToyBackbone& backbone, const std::string& folder) {
  const io::SafetensorsFile file(toy_weights(folder));
  load(parameters(backbone), io::NamedTensors(file, {}), device);
}

class ToyModel final : public Model {
 public:
  /// Without a folder: random weights.
  explicit ToyModel(Device& device, const std::string& folder = "") {
    if (!folder.empty()) {
      load_toy(device, *backbone_, folder);
      return;
    }
    const auto params = parameters(*backbone_);
    allocate(params, device);
    initialise(params, toy_init, 3);
  }
  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<Backbone> backbone() override { return backbone_; }
  std::shared_ptr<LatentCodec> codec() override { return std::make_shared<ToyCodec>(); }
  Condition encode(const std::vector<std::string>& prompts) override { return toy_condition(prompts); }

 private:
  ModelInfo info_ = toy_info();
  std::shared_ptr<ToyBackbone> backbone_ = std::make_shared<ToyBackbone>();
};

class TrainableToy final : public TrainableModel {
 public:
  Backbone& backbone() override { return backbone_; }
  Schedule schedule() const override { return Schedule::flux1_schnell(); }
  std::vector<Part> parts() override { return {{"toy.", parameters(backbone_), toy_init}}; }
  Condition encode(const std::vector<std::string>& captions) override { return toy_condition(captions); }
  std::string fingerprint() const override { return "toy"; }
  void load(Device& device, const std::string& folder) override { load_toy(device, backbone_, folder); }
  void save(const std::string& folder, const std::string&, const SamplingDefaults&) override {
    vkflux::save(parameters(backbone_), toy_weights(folder), {}, io::FileDType::f32);
  }

 private:
  ToyBackbone backbone_;
};

inline const Family kToy{
    "toy", "Toy", [](std::string_view name) { return name == "ToyPipeline"; },
    [](Device& device, const ModelFiles& files, const ModelOptions&) -> std::unique_ptr<Model> {
      return std::make_unique<ToyModel>(device, files.folder);
    },
    [](const ModelSizes&) -> std::unique_ptr<TrainableModel> { return std::make_unique<TrainableToy>(); }};

}  // namespace vkflux::test
