#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

Flux1Config tiny() {
  Flux1Config c;
  c.in_channels = c.out_channels = 8;
  c.vec_in_dim = 12;
  c.context_in_dim = 20;
  c.hidden = 32;
  c.mlp_hidden = 48;
  c.heads = 2;
  c.head_dim = 16;
  c.depth = 1;
  c.depth_single = 2;
  c.axes_dim = {4, 6, 6};
  c.guidance = true;
  return c;
}

std::map<std::string, Shape> shapes(const Flux1Config& config) {
  Flux1 model(config);
  std::map<std::string, Shape> out;
  for (const Param& p : parameters(model)) out.emplace(p.name, p.shape);
  return out;
}

/// Every parameter random, so that no path is multiplied by zero.
void randomise(Flux1& model, uint64_t seed) {
  auto params = parameters(model);
  allocate(params, device());
  initialise(
      params,
      [](const Param& p) {
        return p.name.ends_with("scale") ? Init{Init::Kind::constant, 1.1f} : Init{Init::Kind::normal, 0.15f};
      },
      seed);
}

PassInputs random_inputs(const Flux1Config& c, int64_t batch, int64_t text, int64_t rows, int64_t columns) {
  PassInputs in;
  in.x = op::normal(device(), {batch, rows * columns, c.in_channels}, 1, 0);
  in.condition = {{"txt", op::normal(device(), {batch, text, c.context_in_dim}, 2, 0)},
                  {"y", op::normal(device(), {batch, c.vec_in_dim}, 3, 0)}};
  in.t = op::uniform(device(), {batch}, 4, 0);
  if (c.guidance) in.guidance = Tensor::full(device(), {batch}, 3.5f);
  in.positions = rope_table(device(), flux1_ids(text, rows, columns), 1, c.axes_dim, c.theta);
  return in;
}

ErrorCode code_of(const std::function<void()>& fn, std::string& message) {
  try {
    fn();
  } catch (const Error& e) {
    message = e.what();
    return e.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

TEST(Flux1Config, IsInferredFromShapes) {
  const Flux1Config want = tiny();
  const Flux1Config got = infer_flux1_config(shapes(want));
  EXPECT_EQ(got.hidden, want.hidden);
  EXPECT_EQ(got.mlp_hidden, want.mlp_hidden);
  EXPECT_EQ(got.heads, want.heads);
  EXPECT_EQ(got.depth, want.depth);
  EXPECT_EQ(got.depth_single, want.depth_single);
  EXPECT_EQ(got.in_channels, want.in_channels);
  EXPECT_EQ(got.out_channels, want.out_channels);
  EXPECT_EQ(got.vec_in_dim, want.vec_in_dim);
  EXPECT_EQ(got.context_in_dim, want.context_in_dim);
  EXPECT_TRUE(got.guidance);
  Flux1Config from_json = got;
  apply_flux1_json(from_json, flux1_json(want));
  EXPECT_EQ(from_json.axes_dim, want.axes_dim);
}

TEST(Flux1Config, CountsThePublishedModels) {
  Flux1Config dev;
  dev.guidance = true;
  Flux1 model(dev);
  EXPECT_EQ(count(parameters(model)), 11'901'408'320);
  EXPECT_EQ(parameters(model).size(), 780u);
  Flux1Config schnell;
  Flux1 fast(schnell);
  EXPECT_EQ(count(parameters(fast)), 11'891'178'560);
}

TEST(Flux1Config, SplitsRopeAxes) {
  EXPECT_EQ(default_rope_axes(128), (std::vector<int64_t>{16, 56, 56}));
  EXPECT_EQ(default_rope_axes(64), (std::vector<int64_t>{8, 28, 28}));
  for (const int64_t d : {8, 12, 16, 24, 32, 40, 48, 96}) {
    const auto a = default_rope_axes(d);
    EXPECT_EQ(a[0] + a[1] + a[2], d);
    EXPECT_TRUE(a[0] % 2 == 0 && a[1] % 2 == 0 && a[1] > 0) << d;
  }
}

TEST(Flux1Config, RefusesRelativesAndBrokenFiles) {
  std::string message;
  auto s = shapes(tiny());
  s.emplace("distilled_guidance_layer.in_proj.weight", Shape{4, 4});
  EXPECT_EQ(code_of([&] { infer_flux1_config(s); }, message), ErrorCode::unsupported);
  EXPECT_NE(message.find("Chroma"), std::string::npos) << message;
  s = shapes(tiny());
  s["img_in.weight"] = Shape{32, 25};
  EXPECT_EQ(code_of([&] { infer_flux1_config(s); }, message), ErrorCode::unsupported);
  s = shapes(tiny());
  s.erase("txt_in.weight");
  EXPECT_EQ(code_of([&] { infer_flux1_config(s); }, message), ErrorCode::format);
  EXPECT_NE(message.find("txt_in.weight"), std::string::npos) << message;
  s = shapes(tiny());
  s["double_blocks.0.img_attn.norm.query_norm.scale"] = Shape{15};
  EXPECT_EQ(code_of([&] { infer_flux1_config(s); }, message), ErrorCode::format);
  s = shapes(tiny());
  s.emplace("double_blocks.x.weight", Shape{15});
  EXPECT_EQ(code_of([&] { infer_flux1_config(s); }, message), ErrorCode::format);
}

TEST(Flux1Rope, MatchesTheFormula) {
  const std::vector<int64_t> axes{16, 56, 56};
  const std::vector<float> table = rope_table(device(), flux1_ids(1, 2, 3), 1, axes, 10000).to_host();
  ASSERT_EQ(table.size(), 7u * 64 * 2);
  for (size_t i = 0; i < 128; ++i) EXPECT_EQ(table[i], i % 2 ? 0.0f : 1.0f);  // text stays
  const size_t last = 6 * 64;                                                 // image token (1, 2)
  EXPECT_NEAR(table[2 * (last + 8)], std::cos(1.0), 1e-6);
  EXPECT_NEAR(table[2 * (last + 9) + 1], std::sin(0.71968567), 1e-6);
  EXPECT_NEAR(table[2 * (last + 36 + 2) + 1], std::sin(2 * 0.51794747), 1e-6);
  EXPECT_NEAR(table[2 * (last + 63) + 1], std::sin(2 * 0.00013895), 1e-6);
}

TEST(Flux1, MatchesDiffusersLayoutAndValues) {
  const GoldenCase golden = GoldenCase::data("flux_diffusers_names.safetensors");
  const io::NamedTensors file = golden.weights(io::flux1_names());
  Flux1Config config = infer_flux1_config(shapes_of(file));
  config.axes_dim = {4, 6, 6};
  Flux1 model(config);
  load(parameters(model), file, device());

  PassInputs in;
  in.x = golden.tensor("in.img");
  in.condition = {{"txt", golden.tensor("in.txt")}, {"y", golden.tensor("in.y")}};
  in.t = golden.tensor("in.timesteps");
  in.guidance = golden.tensor("in.guidance");
  const int64_t batch = in.x.dim(0), text = in.condition["txt"].dim(1);
  const std::vector<float> txt_ids = golden.values("in.txt_ids"), img_ids = golden.values("in.img_ids");
  std::vector<float> ids;
  for (int64_t b = 0; b < batch; ++b) {
    const auto part = [&](const std::vector<float>& v) {
      const auto n = static_cast<ptrdiff_t>(v.size()) / batch;
      ids.insert(ids.end(), v.begin() + b * n, v.begin() + (b + 1) * n);
    };
    part(txt_ids);
    part(img_ids);
  }
  in.positions = rope_table(device(), ids, batch, config.axes_dim, config.theta);
  ASSERT_EQ(text, 5);

  Trace trace;
  const Tensor out = model.forward(in, &trace);
  for (const char* mid :
       {"img_in", "txt_in", "vec", "double.0.img", "double.0.txt", "single.0", "single.1"}) {
    golden.check(std::string("mid.") + mid, trace[mid]);
  }
  golden.check("out.img", out);
}

TEST(Flux1, SavesWhatItLoads) {
  const GoldenCase golden = GoldenCase::data("flux_diffusers_names.safetensors");
  const io::NamedTensors file = golden.weights(io::flux1_names());
  const Flux1Config config = infer_flux1_config(shapes_of(file));
  Flux1 model(config);
  load(parameters(model), file, device());
  const std::string path = testing::TempDir() + "flux_test_saved.safetensors";
  save(parameters(model), path, io::flux1_names(), io::FileDType::f32, flux1_row_split(config));
  const io::SafetensorsFile saved(path);
  for (const auto& [name, info] : saved.tensors()) {
    const auto want = golden.values("w." + name);
    EXPECT_EQ(saved.read_f32(name), want) << name;
  }
  Flux1 again(config);
  load(parameters(again), io::NamedTensors(saved, io::flux1_names()), device());
  EXPECT_EQ(saved.tensors().size(), golden.count("w."));
  std::remove(path.c_str());
}

TEST(Flux1, GradientsMatchDifferencesOfTheLoss) {
  const Flux1Config config = tiny();
  Flux1 model(config);
  randomise(model, 5);
  PassInputs in = random_inputs(config, 2, 3, 2, 2);
  const Tensor cotangent = op::normal(device(), {2, 4, 8}, 9, 0);
  const auto loss = [&] { return op::sum_all(op::mul(model.forward(in), cotangent)); };
  Tape tape;
  auto params = parameters(model);
  for (const Param& p : params) tape.watch(*p.tensor);
  tape.watch(in.x);
  tape.watch(in.condition["txt"]);
  Tensor value;
  {
    const auto scope = tape.record();
    value = loss();
  }
  const Grads grads = tape.backward(value);
  // Along its own gradient the loss of one parameter changes by |g|^2 per unit; parameters of every kind.
  for (const char* name :
       {"img_in.weight", "txt_in.bias", "time_in.in_layer.weight", "guidance_in.out_layer.weight",
        "double_blocks.0.img_mod.lin.weight", "double_blocks.0.txt_attn.qkv.weight",
        "double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.txt_mlp.0.bias",
        "single_blocks.0.linear1.weight", "single_blocks.0.linear1.bias", "single_blocks.1.linear2.weight",
        "single_blocks.0.norm.query_norm.scale", "single_blocks.1.modulation.lin.bias",
        "final_layer.adaLN_modulation.1.weight", "final_layer.linear.weight"}) {
    const auto it =
        std::find_if(params.begin(), params.end(), [&](const Param& p) { return p.name == name; });
    ASSERT_NE(it, params.end()) << name;
    const std::vector<float> start = it->tensor->to_host(), g = grads.of(*it->tensor).to_host();
    double norm2 = 0;
    for (const float x : g) norm2 += static_cast<double>(x) * x;
    ASSERT_GT(norm2, 0) << name;
    const double h = 0.01 / std::sqrt(norm2);  // the loss is about as large as its gradient's reach
    const auto shifted = [&](double by) {
      std::vector<float> moved(start);
      for (size_t i = 0; i < g.size(); ++i) moved[i] += static_cast<float>(by * g[i]);
      it->tensor->copy_from_host(std::span<const float>(moved));
      return static_cast<double>(loss().item());
    };
    const double slope = (shifted(h) - shifted(-h)) / (2 * h);
    it->tensor->copy_from_host(std::span<const float>(start));
    EXPECT_NEAR(slope / norm2, 1, 0.02) << name;
  }
}

TEST(Flux1, CheckpointingChangesNoGradient) {
  const Flux1Config config = tiny();
  Flux1 model(config);
  randomise(model, 6);
  const PassInputs in = random_inputs(config, 1, 3, 2, 3);
  const auto params = parameters(model);
  std::vector<std::vector<std::vector<float>>> results;
  for (const bool on : {false, true}) {
    model.set_checkpointing(on);
    Tape tape;
    for (const Param& p : params) tape.watch(*p.tensor);
    Tensor loss;
    {
      const auto scope = tape.record();
      loss = op::mean_all(op::unary(model.forward(in), op::Unary::square));
    }
    const Grads grads = tape.backward(loss);
    results.emplace_back();
    for (const Param& p : params) results.back().push_back(grads.of(*p.tensor).to_host());
  }
  for (size_t i = 0; i < params.size(); ++i) {
    test::expect_close(params[i].name, results[1][i], results[0][i], 1e-5);
  }
}

TEST(Flux1, ZeroGatesLeaveTheInputAndFinalLayer) {
  const Flux1Config config = tiny();
  Flux1 model(config);
  randomise(model, 7);
  for (const Param& p : parameters(model)) {
    if (p.name.find("_mod.lin") != std::string::npos || p.name.find("modulation.lin") != std::string::npos) {
      p.tensor->fill_zero();
    }
  }
  const PassInputs in = random_inputs(config, 1, 2, 2, 2);
  Trace trace;
  const std::vector<float> out = model.forward(in, &trace).to_host();
  EXPECT_EQ(trace["double.0.img"].to_host(), trace["img_in"].to_host());
  FinalLayer last(config.hidden, config.out_channels);
  for (const Param& p : parameters(model)) {
    for (const Param& q : parameters(last, "final_layer.")) {
      if (p.name == q.name) *q.tensor = *p.tensor;
    }
  }
  test::expect_close("final layer", out, last(trace["img_in"], op::silu(trace["vec"])).to_host(), 1e-6);
}

TEST(Flux1, SwappingImageTokensWithTheirPositionsSwapsTheOutput) {
  const Flux1Config config = tiny();
  Flux1 model(config);
  randomise(model, 8);
  PassInputs in = random_inputs(config, 1, 3, 2, 2);
  const std::vector<float> a = model.forward(in).to_host();
  std::vector<float> img = in.x.to_host(), ids = flux1_ids(3, 2, 2);
  std::swap_ranges(img.begin(), img.begin() + 8, img.begin() + 24);
  std::swap_ranges(ids.begin() + 9, ids.begin() + 12, ids.begin() + 18);
  in.x.copy_from_host(std::span<const float>(img));
  in.positions = rope_table(device(), ids, 1, config.axes_dim, config.theta);
  std::vector<float> b = model.forward(in).to_host();
  std::swap_ranges(b.begin(), b.begin() + 8, b.begin() + 24);
  test::expect_close("swapped", b, a, 1e-5);
}

TEST(Flux1, NamesTheInputThatDoesNotFit) {
  const Flux1Config config = tiny();
  Flux1 model(config);
  randomise(model, 8);
  PassInputs in = random_inputs(config, 1, 3, 2, 2);
  in.guidance = {};
  std::string message;
  EXPECT_EQ(code_of([&] { model.forward(in); }, message), ErrorCode::invalid_argument);
  EXPECT_NE(message.find("guidance"), std::string::npos) << message;
}

class CountingTap : public AttentionTap {
 public:
  void observe(const AttentionCall& call, const Served& served, const Tensor& out) override {
    layers.push_back(call.layer);
    EXPECT_EQ(out.shape(), call.q.shape());
    EXPECT_EQ(call.tokens.text, 3);
    EXPECT_GT(served.full_flops, 0);
  }
  std::vector<int> layers;
};

class Pupil : public AttentionTap {
 public:
  bool wants_full(const AttentionCall&) override { return true; }
  void taught(const AttentionCall&, const Tensor&) override { ++lessons; }
  int lessons = 0;
};

class SteeredAttention : public Attention {
 public:
  Tensor forward(const AttentionCall& call) override {
    if (fails) throw Error(ErrorCode::invalid_argument, "it was told to fail");
    return Tensor::full(call.q.device(), call.q.shape(), value);
  }
  std::string refusal(const AttentionShape&) const override { return reason; }
  Cost cost(const AttentionShape&) const override { return {}; }
  float value = 0;
  bool fails = false;
  std::string reason;
};

class AttentionSeam : public ::testing::Test {
 protected:
  AttentionSeam() : model_(tiny()), in_(random_inputs(tiny(), 1, 3, 2, 2)) {
    randomise(model_, 9);
    full_ = model_.forward(in_).to_host();
  }
  std::vector<float> step(AttentionRun& run, const RoutePlan& plan) {
    in_.attention = &run;
    return run.step(plan, [&] { return model_.forward(in_); }).to_host();
  }
  Flux1 model_;
  PassInputs in_;
  std::vector<float> full_;
};

TEST_F(AttentionSeam, TapsSeeEveryLayerAndStrategiesReplaceOne) {
  const RoutePlan plan{AttentionKind::full, AttentionKind::hkr, AttentionKind::hkr};
  CountingTap tap;
  AttentionRun plain(device(), model_.attention(), {&tap});
  EXPECT_EQ(step(plain, {}), full_);
  EXPECT_EQ(tap.layers, (std::vector<int>{0, 1, 2}));
  model_.attention().set(1, AttentionKind::hkr, std::make_shared<SteeredAttention>());
  EXPECT_EQ(step(plain, plan), full_) << "a run keeps what the bank had when it began";
  AttentionRun run(device(), model_.attention());
  EXPECT_EQ(step(run, {}), full_) << "a strategy serves only where a plan asks for it";
  EXPECT_NE(step(run, plan), full_);
  EXPECT_EQ(run.served()[1].kind, AttentionKind::hkr);
  EXPECT_EQ(run.served()[2].kind, AttentionKind::full);
  EXPECT_NE(run.served()[2].refusal, "");
  EXPECT_EQ(tap.layers.size(), 6u);
  EXPECT_THROW(model_.attention().set(0, AttentionKind::hkr, std::make_shared<SteeredAttention>()), Error);
  EXPECT_THROW(step(run, RoutePlan(4, AttentionKind::full)), Error);
}

TEST_F(AttentionSeam, FailsClosedToFullAttentionAndSaysWhy) {
  const auto student = std::make_shared<SteeredAttention>();
  model_.attention().set(2, AttentionKind::hkr, student);
  const RoutePlan plan(3, AttentionKind::hkr);
  AttentionRun first(device(), model_.attention());
  student->reason = "not ready";
  EXPECT_EQ(step(first, plan), full_);
  EXPECT_EQ(first.served()[2].refusal, "not ready");
  student->reason.clear();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    student->value = bad;
    Pupil pupil;
    AttentionRun run(device(), model_.attention(), {&pupil});
    EXPECT_EQ(step(run, plan), full_) << "the step was made again";
    EXPECT_EQ(pupil.lessons, 3) << "once for each layer";
    EXPECT_NE(run.served()[2].refusal.find("finite"), std::string::npos);
    student->value = 0;
    EXPECT_EQ(step(run, plan), full_) << "barred for the rest of the run";
  }
  student->fails = true;
  AttentionRun run(device(), model_.attention());
  EXPECT_EQ(step(run, plan), full_);
  EXPECT_EQ(run.served()[2].kind, AttentionKind::full);
  EXPECT_NE(run.served()[2].refusal.find("told to fail"), std::string::npos);
  student->fails = false;
  in_.tokens.key_mask = Tensor::from(device(), std::vector<uint8_t>(7, 1), {1, 7});
  AttentionRun masked(device(), model_.attention());
  step(masked, plan);
  EXPECT_EQ(masked.served()[2].kind, AttentionKind::hkr);
}

TEST(Module, PlacesParametersInAnArenaAndInitialisesByName) {
  const Flux1Config config = tiny();
  Flux1 a(config), b(config);
  auto pa = parameters(a), pb = parameters(b);
  const Arena arena(device(), layout(pa));
  place(pa, arena);
  allocate(pb, device());
  initialise(pa, flux1_init(), 3);
  initialise(pb, flux1_init(), 3);
  for (size_t i = 0; i < pa.size(); ++i)
    EXPECT_EQ(pa[i].tensor->to_host(), pb[i].tensor->to_host()) << pa[i].name;
  const std::vector<float> w = pa[0].tensor->to_host();
  double sum = 0, squares = 0;
  for (const float x : w) {
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  const auto n = static_cast<double>(w.size());
  EXPECT_EQ(pa[0].name, "img_in.weight");
  EXPECT_NEAR(sum / n, 0, 0.03);
  EXPECT_NEAR(std::sqrt(squares / n), std::sqrt(2.0 / (8 + 32)), 0.02);  // Xavier
}

}  // namespace
}  // namespace vkflux
