// FLUX.2's transformer against diffusers' (tests/data/make_flux2_goldens.py), and what follows from its
// definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "model/convert.h"
#include "model/flux2/component.h"
#include "model/flux2/rope.h"
#include "model/flux2/transformer.h"
#include "model/sampler/run.h"
#include "model/sampler/scheduler_config.h"
#include "model/weight_stream.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/random_model.h"
#include "tests/harness/temp_folder.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::expect_error;
using test::GoldenCase;

GoldenCase vectors(const std::string& name) {
  return GoldenCase::data("flux2/" + name + ".safetensors");
}

Flux2Config tiny() {
  Flux2Config c;
  c.channels = 8;
  c.context_in_dim = 20;
  c.hidden = 32;
  c.mlp_hidden = 96;
  c.heads = 2;
  c.head_dim = 16;
  c.depth = 1;
  c.depth_single = 2;
  c.time_features = 64;
  c.axes_dim = {4, 4, 4, 4};
  return c;
}

std::map<std::string, Shape> shapes(const Flux2Config& config) {
  Flux2 model(config);
  std::map<std::string, Shape> out;
  for (const Param& p : parameters(model)) out.emplace(p.name, p.shape);
  return out;
}

PassInputs random_inputs(Flux2& model, int64_t batch, int64_t text, int64_t rows, int64_t columns) {
  const Flux2Config& c = model.config();
  PassInputs in;
  in.x = op::normal(device(), {batch, rows * columns, c.channels}, 1, 0);
  in.condition = {{"txt", op::normal(device(), {batch, text, c.context_in_dim}, 2, 0)}};
  in.t = op::uniform(device(), {batch}, 4, 0);
  in.tokens.rows = rows;
  in.tokens.columns = columns;
  if (c.guidance) in.guidance = Tensor::full(device(), {batch}, 3.5f);
  model.prepare(in);
  return in;
}

// ---------------------------------------------------------------- configs

TEST(Flux2Config, IsInferredFromShapes) {
  const Flux2Config want = tiny();
  const Flux2Config got = infer_flux2_config(shapes(want));
  EXPECT_EQ(flux2_json(got), flux2_json(want));
  Flux2Config other = want;
  other.guidance = false;
  other.axes_dim = {8, 0, 6, 2};
  other.theta = 50.5;
  other.eps = 1e-3;
  Flux2Config read = infer_flux2_config(shapes(other));
  EXPECT_FALSE(read.guidance);
  apply_flux2_json(read, flux2_json(other));
  EXPECT_EQ(flux2_json(read), flux2_json(other));
  const io::Json all = flux2_json(want);
  const auto known = flux2_fields();
  for (const auto& [key, value] : all.items()) {
    EXPECT_TRUE(key.starts_with("_") || std::find(known.begin(), known.end(), key) != known.end()) << key;
  }
}

TEST(Flux2Config, CountsThePublishedModels) {
  const auto expect_count = [](const char* name, int64_t values, size_t tensors) {
    Flux2 model(flux2_config(name));
    EXPECT_EQ(count(parameters(model)), values) << name;
    EXPECT_EQ(parameters(model).size(), tensors) << name;
  };
  expect_count("flux2-dev", 32'223'281'152, 299);
  expect_count("flux2-klein-9b", 9'078'581'248, 201);
  expect_count("flux2-klein-4b", 3'875'544'576, 149);
  expect_error(ErrorCode::invalid_argument, {"flux3", "flux2-klein-4b"}, [] { flux2_config("flux3"); });
}

TEST(Flux2Config, SplitsRopeAxes) {
  EXPECT_EQ(flux2_rope_axes(128), (std::vector<int64_t>{32, 32, 32, 32}));
  EXPECT_EQ(flux2_rope_axes(12), (std::vector<int64_t>{4, 4, 2, 2}));
  EXPECT_EQ(flux2_rope_axes(4), (std::vector<int64_t>{2, 2, 0, 0}));
}

TEST(Flux2Config, RefusesRelativesByTheirNames) {
  const auto with = [](const char* name, Shape shape) {
    auto s = shapes(tiny());
    s.emplace(name, shape);
    return s;
  };
  for (const auto& [tensor, word] :
       {std::pair{"distilled_guidance_layer.in_proj.weight", "Chroma"},
        std::pair{"vector_in.in_layer.weight", "FLUX.1"},
        std::pair{"double_blocks.0.img_mod.lin.weight", "Flex"}, std::pair{"byt5_in.fc1.weight", "video"},
        std::pair{"img_in.proj.weight", "video"},
        std::pair{"double_blocks.0.img_attn.qkv.lora_A.weight", "LoRA"},
        std::pair{"img_in.bias", "biases"}}) {
    const auto s = with(tensor, {4, 4});
    expect_error(ErrorCode::unsupported, {word, tensor}, [&] { infer_flux2_config(s); });
  }
  auto s = shapes(tiny());
  s["img_in.weight"] = Shape{32, 9};
  expect_error(ErrorCode::unsupported, {"9 channels in, 8 out"}, [&] { infer_flux2_config(s); });
}

TEST(Flux2Config, RefusesBrokenFiles) {
  const auto broken = [](const std::string& name, const Shape& shape, const std::vector<std::string>& words) {
    auto s = shapes(tiny());
    s[name] = shape;
    expect_error(ErrorCode::format, words, [&] { infer_flux2_config(s); });
  };
  broken("double_blocks.0.img_attn.norm.query_norm.scale", {15}, {"32", "15"});
  broken("double_blocks.0.img_mlp.0.weight", {191, 32}, {"191"});
  broken("double_blocks.x.weight", {15}, {"double_blocks.x.weight"});
  broken("double_blocks.3.txt_mlp.2.weight", {15, 15}, {"double_blocks.3"});
  broken("txt_in.weight", {15}, {"txt_in.weight", "rank 2"});
  auto s = shapes(tiny());
  s.erase("final_layer.linear.weight");
  expect_error(ErrorCode::format, {"FLUX.2", "final_layer.linear.weight"}, [&] { infer_flux2_config(s); });
}

TEST(Flux2Config, HonoursOrRefusesEveryField) {
  const auto applied = [](const char* json) {
    Flux2Config c = tiny();
    apply_flux2_json(c, io::parse_json(json, "config"));
    return c;
  };
  for (const char* fine : {"{}", R"({"mlp_ratio": null, "axes_dims_rope": null, "out_channels": null})",
                           R"({"mlp_ratio": 3, "num_layers": 1.0, "patch_size": 1})"})
    EXPECT_EQ(flux2_json(applied(fine)), flux2_json(tiny())) << fine;
  EXPECT_EQ(applied(R"({"rope_theta": 10000})").theta, 10000);
  EXPECT_EQ(applied(R"({"axes_dims_rope": [8, 4, 4]})").axes_dim, (std::vector<int64_t>{8, 4, 4}));
  expect_error(ErrorCode::unsupported, {"patch_size", "2"}, [&] { applied(R"({"patch_size": 2})"); });
  for (const char* bad :
       {R"({"num_layers": 2})", R"({"mlp_ratio": 2.5})", R"({"mlp_ratio": 1e300})", R"({"mlp_ratio": "3"})",
        R"({"guidance_embeds": false})", R"({"timestep_guidance_channels": 32})",
        R"({"joint_attention_dim": 21})", R"({"rope_theta": "nan"})", R"({"rope_theta": NaN})",
        R"({"rope_theta": 0})", R"({"eps": -1})", R"({"axes_dims_rope": 16})", R"({"axes_dims_rope": []})",
        R"({"axes_dims_rope": [5, 3, 4, 4]})", R"({"axes_dims_rope": [4, 4, 4, 2, 2]})",
        R"({"axes_dims_rope": [32, -16, 0, 0]})", R"({"axes_dims_rope": [4.5, 4, 4, 3.5]})",
        R"({"axes_dims_rope": [4, 4, 4, 8]})"}) {
    expect_error(ErrorCode::format, {"config"}, [&] { applied(bad); });
  }
}

TEST(Flux2Component, TellsTheVariants) {
  const test::TempFolder folder;
  const GoldenCase golden = vectors("klein");
  Flux2Config config = infer_flux2_config(shapes_of(golden.weights(io::flux2_names())));
  Flux2 model(config);
  load(parameters(model), golden.weights(io::flux2_names()), device());
  const std::string path = folder.file("x.safetensors");
  save(parameters(model), path, io::flux2_names(), io::FileDType::f32);
  const io::SafetensorsFile file(path);
  const auto told = flux2_component().describe(file, golden.config());
  ASSERT_TRUE(told);
  EXPECT_EQ(told->at("rope_theta"), 77);
  EXPECT_EQ(told->at("num_single_layers"), 1);
  EXPECT_NE(told->at("variant").get<std::string>().find("klein"), std::string::npos);
  flux2_component().check(file, *told);
}

// ---------------------------------------------------------------- values

/// A golden file's inputs: its picture's tokens, then those of two references.
PassInputs golden_inputs(const GoldenCase& golden, Flux2& model) {
  const Tensor all = golden.tensor("in.hidden_states");
  PassInputs in;
  in.x = op::clone(all.slice(1, 0, 8));
  in.condition = {{"txt", golden.tensor("in.encoder_hidden_states")},
                  {kReferenceTokens, op::clone(all.slice(1, 8, 8))}};
  in.t = golden.tensor("in.timestep");
  in.guidance = golden.tensor("in.guidance");
  in.tokens.rows = 2;
  in.tokens.columns = 4;
  in.tokens.references = {{3, 2, 10}, {1, 2, 20}};
  model.prepare(in);
  return in;
}

class Flux2Golden : public ::testing::TestWithParam<const char*> {
 protected:
  const GoldenCase golden = vectors(GetParam());
  const io::NamedTensors file = golden.weights(io::flux2_names());
  Flux2Config config() const {
    Flux2Config c = infer_flux2_config(shapes_of(file));
    apply_flux2_json(c, golden.config());
    return c;
  }
};

TEST_P(Flux2Golden, ValuesAndGradientsAreThoseOfDiffusers) {
  Flux2 model(config());
  load(parameters(model), file, device());
  PassInputs in = golden_inputs(golden, model);
  const Tensor txt = in.condition["txt"], references = in.condition[kReferenceTokens];
  Tape tape;
  for (const Tensor& x : {in.x, txt, references}) tape.watch(x);
  Tensor y, loss;
  {
    const auto scope = tape.record();
    y = model.forward(in);
    loss = op::sum_all(op::mul(y, golden.tensor("in.loss_cotangent")));
  }
  golden.check("out.velocity", y);
  const Grads grads = tape.backward(loss);
  golden.check("grad.in.hidden_states", op::concat({grads.of(in.x), grads.of(references)}, 1),
               test::kGradientTolerance);
  golden.check("grad.in.encoder_hidden_states", grads.of(txt), test::kGradientTolerance);
}

TEST_P(Flux2Golden, WeightsOfOtherTypesComeClose) {
  for (const auto& [type, tolerance] :
       {std::pair{DType::f16, test::kOutputTolerance}, std::pair{DType::q8_0, 0.06}}) {
    SCOPED_TRACE(name(type));
    Flux2 model(config());
    load(parameters(model), file, device(), type, flux2_storage());
    golden.check("out.velocity", model.forward(golden_inputs(golden, model)), tolerance);
  }
}

TEST_P(Flux2Golden, SavesWhatItLoads) {
  Flux2 model(config());
  load(parameters(model), file, device());
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  save(parameters(model), path, io::flux2_names(), io::FileDType::f32);
  const io::SafetensorsFile saved(path);
  EXPECT_EQ(saved.tensors().size(), golden.count("w."));
  for (const auto& [name, info] : saved.tensors())
    EXPECT_EQ(saved.read_f32(name), golden.values("w." + name)) << name;
  // And in BFL's names, there and back.
  const std::string bfl = folder.file("bfl.safetensors"), back = folder.file("back.safetensors");
  for (const auto& [from, to, layout] : {std::tuple{path, bfl, "bfl"}, std::tuple{bfl, back, "diffusers"}}) {
    const auto source = io::open_tensors(from);
    const ModelPartFile part = part_of_file(*source, "");
    const io::NamedTensors named(*source, part.names);
    convert(part, *weights_of(named), to, {{}, layout});
  }
  const io::SafetensorsFile again(back);
  EXPECT_EQ(again.tensors().size(), saved.tensors().size());
  for (const auto& [name, info] : saved.tensors())
    EXPECT_EQ(again.read_bytes(name), saved.read_bytes(name)) << name;
}

INSTANTIATE_TEST_SUITE_P(Configs, Flux2Golden, ::testing::Values("dev", "klein", "three_axes", "no_single"),
                         [](const auto& info) { return std::string(info.param); });

// ---------------------------------------------------------------- gradients

TEST(Flux2, GradientsMatchDifferencesOfTheLoss) {
  const Flux2Config config = tiny();
  Flux2 model(config);
  test::randomise(model, 5, 0.15f);
  PassInputs in = random_inputs(model, 2, 3, 2, 2);
  const Tensor cotangent = op::normal(device(), {2, 4, 8}, 9, 0);
  const auto loss = [&] { return op::sum_all(op::mul(model.forward(in), cotangent)); };
  Tape tape;
  auto params = parameters(model);
  for (const Param& p : params) tape.watch(*p.tensor);
  Tensor value;
  {
    const auto scope = tape.record();
    value = loss();
  }
  const Grads grads = tape.backward(value);
  // Along its own gradient the loss of one parameter changes by |g|^2 per unit; parameters of every kind.
  for (const char* name :
       {"img_in.weight", "txt_in.weight", "time_in.in_layer.weight", "guidance_in.out_layer.weight",
        "double_stream_modulation_img.lin.weight", "double_stream_modulation_txt.lin.weight",
        "single_stream_modulation.lin.weight", "double_blocks.0.txt_attn.qkv.weight",
        "double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.txt_mlp.0.weight",
        "double_blocks.0.img_mlp.2.weight", "single_blocks.0.linear1.weight",
        "single_blocks.1.linear2.weight", "single_blocks.0.norm.query_norm.scale",
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

TEST(Flux2, CheckpointingChangesNoGradient) {
  Flux2 model(tiny());
  test::randomise(model, 6, 0.15f);
  const PassInputs in = random_inputs(model, 1, 3, 2, 3);
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
  for (size_t i = 0; i < params.size(); ++i)
    test::expect_close(params[i].name, results[1][i], results[0][i], 1e-5);
}

// ---------------------------------------------------------------- what follows from the definition

TEST(Flux2, TheGateOfItsMlpsIsTheFirstHalf) {
  Flux2 model(tiny());
  test::randomise(model, 7, 0.15f);
  const PassInputs in = random_inputs(model, 1, 2, 2, 2);
  const std::vector<float> before = model.forward(in).to_host();
  for (const Param& p : parameters(model)) {
    if (p.name != "double_blocks.0.img_mlp.0.weight") continue;
    std::vector<float> values = p.tensor->to_host();
    std::rotate(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
    p.tensor->copy_from_host(std::span<const float>(values));
  }
  EXPECT_NE(model.forward(in).to_host(), before);
}

TEST(Flux2, OnlyDistancesBetweenPositionsMatter) {
  Flux2 model(tiny());
  test::randomise(model, 8, 0.15f);
  PassInputs in = random_inputs(model, 1, 3, 2, 2);
  const std::vector<float> before = model.forward(in).to_host();
  std::vector<float> ids = flux2_ids(in.tokens);
  for (size_t i = 0; i < ids.size(); i += 4) ids[i] += 7;
  model.prepare(in, ids);
  test::expect_close("all indices moved", model.forward(in).to_host(), before, 1e-5);
  ids.back() += 3;
  model.prepare(in, ids);
  EXPECT_NE(model.forward(in).to_host(), before) << "the text axis turns image tokens too";
}

TEST(Flux2, PutsTokensWhereTheyBelong) {
  TokenLayout tokens;
  tokens.text = 2;
  tokens.rows = 1;
  tokens.columns = 2;
  tokens.references = {{1, 1, 10}, {2, 1, 20, 5, 6}};
  EXPECT_EQ(flux2_ids(tokens), (std::vector<float>{0,  0, 0, 0, 0,  0, 0, 1,  // text
                                                   0,  0, 0, 0, 0,  0, 1, 0,  // the picture
                                                   10, 0, 0, 0, 20, 5, 6, 0, 20, 6, 6, 0}));
  EXPECT_TRUE(flux2_periods(tokens).empty());
  tokens.wrap_columns = true;
  const std::vector<float> periods = flux2_periods(tokens);
  ASSERT_EQ(periods.size(), flux2_ids(tokens).size());
  EXPECT_EQ(std::vector<float>(periods.begin() + 8, periods.begin() + 12), (std::vector<float>{0, 0, 2, 0}));
  EXPECT_EQ(std::vector<float>(periods.end() - 4, periods.end()), (std::vector<float>{0, 0, 1, 0}));
}

TEST(Flux2, NamesTheInputThatDoesNotFit) {
  Flux2 model(tiny());
  test::randomise(model, 8, 0.15f);
  PassInputs in = random_inputs(model, 1, 3, 2, 2);
  in.guidance = {};
  expect_error(ErrorCode::invalid_argument, {"FLUX.2", "guidance"}, [&] { model.forward(in); });
  in = random_inputs(model, 1, 3, 2, 2);
  in.condition.set(kExtraChannels, in.x);
  expect_error(ErrorCode::invalid_argument, {"reference tokens"}, [&] { model.forward(in); });
}

// ---------------------------------------------------------------- sampling

TEST(Flux2, RecordedAndStreamedPassesHaveTheBitsOfOthers) {
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  Flux2Config config = tiny();
  config.hidden = 256;
  config.mlp_hidden = 512;
  config.heads = 16;
  {
    Flux2 model(config);
    test::randomise(model, 3, 0.1f);
    save(parameters(model), path, io::flux2_names(), io::FileDType::bf16);
  }
  const auto sample = [&](bool replay, bool streams, DType type) {
    Flux2 model(config);
    std::vector<std::string> names;
    for (const PassPart& p : model.parts()) names.push_back(p.name);
    model.stream_weights(load_streamed(parameters(model), names, std::vector<bool>(names.size(), streams),
                                       open_named(path, io::flux2_names()), device(), type, flux2_storage()));
    SamplingOptions o;
    o.levels = {1, 0.7, 0.3, 0};
    o.rows = 2;
    o.columns = 3;
    o.guidance = 4;
    o.replay = replay;
    o.references = {{2, 2, 10}};
    o.pictures = {{kReferenceTokens, op::normal(device(), {1, 4, 8}, 7, 0)}};
    SamplingRun run(model, {{"txt", op::normal(device(), {1, 3, 20}, 1, 0)}}, {},
                    op::normal(device(), {1, 6, 8}, 5, 0), o);
    while (!run.finished()) run.step({});
    run.check_finite();
    return run.x().to_host();
  };
  for (const DType type : {DType::bf16, DType::q4_k}) {
    SCOPED_TRACE(name(type));
    const std::vector<float> plain = sample(false, false, type);
    EXPECT_EQ(sample(true, false, type), plain);
    EXPECT_EQ(sample(true, true, type), plain);
  }
}

TEST(Flux2Schedule, LevelsAreThoseOfItsPipelines) {
  const io::Json rows = io::read_json(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2/schedules.json");
  for (const io::Json& row : rows) {
    SCOPED_TRACE(io::json_text(row.at("config")));
    Schedule schedule = SchedulerConfig::from_json(row.at("config")).schedule;
    schedule.empirical = true;
    const std::vector<double> levels = schedule.levels(row.at("steps"), row.at("tokens"));
    const std::vector<double> told = schedule.times(levels), times = told.empty() ? levels : told;
    const auto want = row.at("levels").get<std::vector<double>>(),
               at = row.at("times").get<std::vector<double>>();
    ASSERT_EQ(levels.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(levels[i], want[i], 2e-6) << i;
    for (size_t i = 0; i < at.size(); ++i) EXPECT_NEAR(times.at(i), at[i], 2e-6) << i;
  }
  EXPECT_GE(rows.size(), 13u);
  EXPECT_NEAR(Schedule::flux2().mu(4096, 4), 2.291180, 1e-6);
  EXPECT_NEAR(Schedule::flux2().mu(1024, 50), 1.701956, 1e-6);
  EXPECT_NEAR(Schedule::flux2().mu(16384, 4), 3.229986, 1e-6);
}

TEST(Flux2, ItsLayoutSaysWhatMayBeReplaced) {
  const BackboneLayout layout = flux2_layout(flux2_config("flux2-klein-4b"));
  EXPECT_EQ(layout.family, "flux2");
  EXPECT_EQ(layout.geometry.token_channels(), 128);
  EXPECT_EQ(layout.geometry.patch, 1);
  EXPECT_FALSE(layout.guidance);
  EXPECT_EQ(layout.replaceable().size(), 20u);
  EXPECT_EQ(layout.layers[static_cast<size_t>(layout.replaceable()[0])].name, "single_blocks.0");
}

}  // namespace
}  // namespace vkflux
