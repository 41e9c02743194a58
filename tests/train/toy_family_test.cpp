// The seam holds: the family of toy_family.h is sampled, replayed, distilled, routed and trained by what
// everybody else uses, and nothing there knows of it.
#include "tests/train/toy_family.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "model/attention/hkr/students.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "model/pipeline.h"
#include "model/routing/controller.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "train/controller/controller_trainer.h"
#include "train/controller/sampling_task.h"
#include "train/distill/distiller.h"
#include "train/distill/run_sequence.h"
#include "train/flow_trainer.h"

namespace vkflux::test {
namespace {

constexpr AttentionKind kHkr = AttentionKind::hkr;

std::unique_ptr<Pipeline> pipeline() {
  return std::make_unique<Pipeline>(device(), std::make_unique<ToyModel>(device()));
}

GenerateRequest request(const std::string& prompt) {
  GenerateRequest r;
  r.prompts = {prompt};
  r.seed = 5;
  return r;
}

GenerateResult generate(Pipeline& p, const GenerateRequest& r) {
  return p.generate(r)->run();
}

std::vector<float> latents(Pipeline& p, const GenerateRequest& r) {
  return generate(p, r).latents.to_host();
}

bool all_finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

TEST(ToyFamily, IsSampled) {
  const auto p = pipeline();
  GenerateRequest r = request("apple");
  r.width = 18;
  r.height = 13;
  const GenerateResult a = generate(*p, r), again = generate(*p, r);
  EXPECT_EQ(a.width, 16);
  EXPECT_EQ(a.height, 12);
  EXPECT_EQ(a.steps, 4);
  EXPECT_EQ(a.latents.shape(), (Shape{1, 3, 3, 4}));
  ASSERT_EQ(a.images.size(), 1u);
  const std::vector<uint8_t>& rgb = a.images[0].rgb;
  ASSERT_EQ(rgb.size(), 16u * 12 * 3);
  EXPECT_EQ(again.images[0].rgb, rgb);
  for (size_t y = 0; y < 12; ++y) {
    for (size_t x = 0; x < 16; ++x)
      EXPECT_EQ(rgb[(y * 16 + x) * 3], rgb[(y / 4 * 4 * 16 + x / 4 * 4) * 3]) << "pixel " << x << " " << y;
  }
  const std::vector<float> want = a.latents.to_host();
  EXPECT_EQ(again.latents.to_host(), want);
  GenerateRequest pear = r, guided = r, from = r;
  pear.prompts = {"pear"};
  EXPECT_NE(latents(*p, pear), want);
  guided.cfg = 2;
  const std::vector<float> plain = latents(*p, guided);
  EXPECT_NE(plain, want);
  guided.negative = {"pear"};
  EXPECT_NE(latents(*p, guided), plain);
  from.init = RgbImage{16, 12, std::vector<uint8_t>(16 * 12 * 3, 200)};
  from.strength = 0.5;
  const GenerateResult changed = generate(*p, from);
  EXPECT_EQ(changed.reports.size(), 2u) << "half of the steps";
  EXPECT_NE(changed.latents.to_host(), want);
  r.width = 3;
  expect_error(ErrorCode::invalid_argument, {"width 3", "4"}, [&] { p->generate(r); });
}

TEST(ToyFamily, NamesTheInputThatDoesNotFit) {
  ToyModel model(device());
  PassInputs in;
  in.x = op::normal(device(), {2, 6, 3}, 1, 0);
  in.t = Tensor::full(device(), {2}, 0.5f);
  in.condition = toy_condition({"apple", "pear"});
  in.tokens.rows = 2;
  in.tokens.columns = 3;
  model.backbone()->prepare(in);
  Trace trace;
  EXPECT_EQ(model.backbone()->forward(in, &trace).shape(), in.x.shape());
  for (const PassPart& part : model.backbone()->parts())
    EXPECT_EQ(trace.at(part.name).shape(), (Shape{2, 7, kToyHidden})) << part.name;
  in.condition = toy_condition({"apple"});
  expect_error(ErrorCode::invalid_argument, {"class", "[2, 8]"}, [&] { model.backbone()->forward(in); });
}

TEST(ToyFamily, IsReplayedBitForBit) {
  // Drivers without push descriptors get eager passes with the same bits.
  const bool recorded = Recording::supported(device());
  ToyModel model(device());
  const auto backbone = model.backbone();
  install(random_students(backbone->layout(), true), backbone->attention());
  const auto begin = [&](bool replay, float cfg) {
    SamplingOptions o;
    o.levels = {1, 0.8, 0.6, 0.45, 0.3, 0.1, 0};
    o.cfg = cfg;
    o.rows = 2;
    o.columns = 3;
    o.replay = replay;
    return std::make_unique<SamplingRun>(*backbone, toy_condition({"apple"}), toy_condition({""}),
                                         op::normal(device(), {1, 6, 3}, 1, 0), o);
  };
  // In step s layer 1 + b uses its student when bit (s + b) of the pattern is set.
  const auto step = [](SamplingRun& run, unsigned pattern) {
    RoutePlan plan(3, AttentionKind::full);
    for (int b = 0; b < 2; ++b) {
      if (pattern >> (run.step_index() + b) & 1) plan[static_cast<size_t>(1 + b)] = kHkr;
    }
    run.step(plan);
  };
  const auto sample = [&](bool replay, float cfg, unsigned pattern) {
    const auto run = begin(replay, cfg);
    while (!run->finished()) step(*run, pattern);
    run->check_finite();
    return run->x().to_host();
  };
  for (const float cfg : {1.0f, 2.0f}) {
    const std::vector<float> full = sample(false, cfg, 0);
    for (const unsigned pattern : {0u, 0xffu, 0x55u, 0x98u}) {
      const std::vector<float> eager = sample(false, cfg, pattern);
      EXPECT_EQ(sample(true, cfg, pattern), eager) << pattern << " cfg " << cfg;
      EXPECT_EQ(eager == full, pattern == 0) << pattern << " cfg " << cfg;
    }
    const auto run = begin(true, cfg);
    for (int i = 0; i < 3; ++i) step(*run, 0xff);
    const uint64_t before = device().stream().counters().replays;
    step(*run, 0xff);
    // begin, layers.0, norm, layers.1, layers.2, finish
    EXPECT_EQ(device().stream().counters().replays - before, !recorded ? 0u : cfg == 1 ? 6u : 12u);
    EXPECT_EQ(run->recorded_bytes() > 0, recorded);
  }
}

/// Counts the answers of students.
class Watching final : public Distiller {
 public:
  using Distiller::Distiller;
  void observe(const AttentionCall& /*call*/, const Served& served, const Tensor& /*out*/) override {
    answers += served.kind == kHkr;
  }
  int64_t answers = 0;
};

class Mean final : public Attention {
 public:
  Tensor forward(const AttentionCall& call) override {
    return op::expand(op::mean(call.v, {2}, true), call.v.shape());
  }
  Cost cost(const AttentionShape&) const override { return {}; }
};

TEST(ToyFamily, IsDistilled) {
  const TempFolder folder;
  const std::string path = folder.file("students");
  const auto p = pipeline();
  SamplingPlan plan;
  plan.prompts = {"apple", "pear", "lime"};
  plan.sizes = {{16, 16}, {20, 12}};
  RunSequence runs(*p, plan);
  EXPECT_EQ(runs.most_tokens(), 16);
  DistillOptions o;
  DistillSettings& s = o.settings;
  s.steps = 40;
  s.feature_dim = 32;
  s.learning_rate = 3e-3;
  s.landmark_fraction = 0.25;
  s.sizes.landmark_min = 2;
  s.sizes.query_cap = 8;
  s.replay_buffer_size = 3;
  s.readiness = {2, 6};  // ready as soon as there were enough updates
  Watching d(device(), runs.backbone().layout(), o);
  const auto weights = [](const Students& students, const std::string& layer) {
    return students.layers.at(layer)->layer->phi_q.linears[0].weight.to_host();
  };
  const std::vector<float> fresh1 = weights(d.students(), "layers.1"),
                           fresh2 = weights(d.students(), "layers.2");
  AttentionBank& bank = runs.backbone().attention();
  const auto before = std::make_shared<Mean>();
  bank.set(1, kHkr, before);
  d.attach(bank);
  EXPECT_NE(bank.find(1, kHkr), before);
  EXPECT_NE(bank.find(2, kHkr), nullptr);
  runs.set_tap(&d);
  for (int64_t step = 0; step < 400 && !d.finished(); ++step) {
    runs.step(d.begin_step(step, static_cast<float>(runs.level())));
    d.end_step();
  }
  d.detach();
  EXPECT_EQ(bank.find(1, kHkr), before);
  EXPECT_EQ(bank.find(2, kHkr), nullptr);
  EXPECT_EQ(d.updates_done(), 40);
  EXPECT_GT(runs.run(), 1);
  EXPECT_GT(d.answers, 0) << "ready students answer while they are trained";
  EXPECT_NE(weights(d.students(), "layers.1"), fresh1);
  EXPECT_NE(weights(d.students(), "layers.2"), fresh2);

  save_students(path, d.described(), io::FileDType::f32);
  const Students loaded = load_students(device(), path, p->info().layout);
  std::set<std::string> names;
  for (const auto& [name, student] : loaded.layers) {
    names.insert(name);
    EXPECT_EQ(weights(loaded, name), weights(d.students(), name)) << name;
    EXPECT_EQ(student->readiness.updates, d.students().layers.at(name)->readiness.updates) << name;
  }
  EXPECT_EQ(names, (std::set<std::string>{"layers.1", "layers.2"}));
  EXPECT_EQ(loaded.ready(), (std::vector<int>{0, 1}));
  const auto refused = [&](const BackboneLayout& layout, const std::vector<std::string>& words) {
    expect_error(ErrorCode::invalid_argument, words, [&] { load_students(device(), path, layout); });
  };
  refused(student_layout(kToyHeads, kToyHead, 1, 2), {"toy", "flux1"});
  refused(toy_layout(4), {"heads is 2 in the file and 4 in the model"});
  BackboneLayout renamed = toy_layout();
  renamed.layers[2].name = "layers.9";
  refused(renamed, {"layers.2"});
}

TEST(ToyFamily, IsRouted) {
  const TempFolder folder;
  const std::string path = folder.file("students");
  const auto plain = pipeline();
  const std::vector<float> full = latents(*plain, request("apple"));
  for (const bool ready : {true, false}) {
    const auto p = pipeline();
    save_students(path, random_students(p->info().layout, ready), io::FileDType::f32);
    p->install_students(path);
    GenerateRequest r = request("apple");
    r.router = std::make_shared<FixedRouter>(std::vector<uint8_t>{1, 1});
    const GenerateResult result = generate(*p, r);
    ASSERT_EQ(result.reports.size(), 4u);
    const std::vector<int> both{0, 1}, none;
    for (const StepReport& report : result.reports) {
      EXPECT_TRUE(report.routed);
      EXPECT_EQ(report.planned, both);
      EXPECT_EQ(report.student, ready ? both : none);
      ASSERT_EQ(report.refused.size(), ready ? 0u : 2u);
      for (const RefusedLayer& layer : report.refused)
        EXPECT_NE(layer.reason.find("not ready: cosine distance"), std::string::npos) << layer.reason;
      EXPECT_EQ(report.attention_flops == report.full_attention_flops, !ready);
    }
    EXPECT_EQ(result.latents.to_host() == full, !ready);
    r.router = std::make_shared<FixedRouter>(std::vector<uint8_t>{0, 0});
    EXPECT_EQ(latents(*p, r), full);
    r.router = std::make_shared<FixedRouter>(std::vector<uint8_t>{1, 1, 1});
    expect_error(ErrorCode::invalid_argument, {"about 3 layers", "2 may be replaced"},
                 [&] { generate(*p, r); });
  }
}

TEST(ToyFamily, TrainsAController) {
  const TempFolder folder;
  const auto p = pipeline();
  const BackboneLayout& layout = p->info().layout;
  const std::shared_ptr<Backbone> backbone = p->backbone();
  install(random_students(layout, true), backbone->attention());
  SamplingTaskOptions o;
  o.sampling.steps = 3;
  o.sampling.cfg = 2;
  o.images = o.seeds = 2;
  const QualityLoss quality({{"rmse", 1}, {"cosine", 1}}, RewardOn::images);
  const auto codec = p->codec();
  SamplingTask task(*backbone, p->info(), codec.get(), p->encode({"apple", "pear"}), p->encode({""}), quality,
                    o);
  EXPECT_EQ(task.pictures(), 4);
  ASSERT_EQ(task.inputs().size(), 3u);
  const auto loss = [&](uint8_t student) {
    return task.play(0, FixedRouter({student, student}).plan(task.inputs(), 0));
  };
  EXPECT_EQ(loss(0).terms.at("cosine_distance"), 0) << "full routing is full sampling, bit for bit";
  EXPECT_GT(loss(1).loss, loss(0).loss);
  EXPECT_TRUE(task.refusals().empty());

  const ControllerConfig config{2, 8, 16};
  ControllerNet net(config);
  allocate(parameters(net), device());
  initialise(parameters(net), controller_init(config), 3);
  ControllerTrainOptions options;
  options.iterations = 2;
  options.plans = 2;
  ControllerTrainer trainer(net, layout, {1, 1}, task, options);
  const auto logits = [&](const ControllerNet& n) { return n.forward(task.inputs()).to_host(); };
  const std::vector<float> before = logits(net);
  for (int i = 0; i < 2; ++i) {
    trainer.step();
    EXPECT_EQ(trainer.latest().at("width"), 16);
    for (const auto& [name, value] : trainer.latest()) EXPECT_TRUE(std::isfinite(value)) << name;
  }
  EXPECT_TRUE(trainer.finished());
  EXPECT_NE(logits(net), before);
  trainer.save(folder.file("controller"));
  EXPECT_EQ(logits(*load_controller(device(), folder.file("controller"), layout)), logits(net));
  expect_error(ErrorCode::invalid_argument, {"toy", "flux1"}, [&] {
    load_controller(device(), folder.file("controller"), student_layout(kToyHeads, kToyHead, 1, 2));
  });
}

/// All weights, by name.
std::map<std::string, std::vector<float>> values(TrainableModel& model) {
  std::map<std::string, std::vector<float>> out;
  for (const TrainableModel::Part& part : model.parts()) {
    for (const Param& param : part.params) out[part.prefix + param.name] = param.tensor->to_host();
  }
  return out;
}

TEST(ToyFamily, IsTrained) {
  const TempFolder folder;
  const std::vector<std::string> captions{"apple", "pear", "lime"};
  for (size_t i = 0; i < captions.size(); ++i) {
    io::Image8 picture{16, 16, std::vector<uint8_t>(16 * 16 * 4, 255)};
    for (size_t at = i; at < picture.rgba.size(); at += 4) picture.rgba[at] = static_cast<uint8_t>(at % 251);
    io::write_png(folder.file("data/" + captions[i] + ".png"), picture);
    io::atomic_write(folder.file("data/" + captions[i] + ".txt"), captions[i] + "\n");
  }
  const Dataset data = Dataset::open(folder.file("data"));
  const ToyCodec codec;
  FlowTrainOptions o;
  o.train.steps = 5;
  o.train.batch = 2;
  o.train.warmup = 1;
  o.train.lr = 1e-2f;
  o.train.log_every = 1;
  o.train.seed = 4;
  o.size = 16;
  o.split = "all";
  o.captions = {0, 0, 0.2f};
  const auto whole = kToy.create({}), first = kToy.create({}), second = kToy.create({});
  FlowTrainer a(device(), *whole, codec, data, o);
  const auto before = values(*whole);
  while (!a.finished()) {
    a.step();
    const auto loss =
        std::find_if(a.latest().begin(), a.latest().end(), [](const auto& m) { return m.first == "loss"; });
    ASSERT_NE(loss, a.latest().end());
    EXPECT_TRUE(std::isfinite(loss->second) && loss->second > 0) << loss->second;
  }
  const auto trained = values(*whole);
  for (const auto& [name, value] : trained) {
    EXPECT_NE(value, before.at(name)) << name;
    EXPECT_TRUE(all_finite(value)) << name;
  }

  FlowTrainer half(device(), *first, codec, data, o);
  for (int i = 0; i < 2; ++i) half.step();
  half.save(folder.file("half"));
  FlowTrainer resumed(device(), *second, codec, data, o);
  resumed.load(folder.file("half"));
  EXPECT_EQ(resumed.steps_done(), 2);
  EXPECT_NE(values(*second), trained);
  while (!resumed.finished()) resumed.step();
  EXPECT_EQ(values(*second), trained);

  // What was trained is a model: sampled, and trained on.
  whole->save(folder.file("model"), "", {});
  ModelFiles files;
  files.folder = folder.file("model");
  Pipeline opened(device(), kToy.open(device(), files, {}));
  const std::vector<float> picture = latents(opened, request("apple"));
  EXPECT_TRUE(all_finite(picture));
  EXPECT_NE(picture, latents(*pipeline(), request("apple")));
  const auto further = kToy.create({});
  further->load(device(), folder.file("model"));
  o.loaded = true;
  FlowTrainer c(device(), *further, codec, data, o);
  EXPECT_EQ(values(*further), trained);
  expect_error(ErrorCode::invalid_argument, {"weights to begin with is absent in the file and checksum "},
               [&] { c.load(folder.file("half")); });
}

}  // namespace
}  // namespace vkflux::test
