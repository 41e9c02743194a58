// The host side of online distillation: averages, replay, the memory ladder and estimate, settings.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "model/io/safetensors.h"
#include "tests/harness/temp_folder.h"
#include "train/distill/degrade.h"
#include "train/distill/memory_estimate.h"
#include "train/distill/replay.h"
#include "train/distill/run_ema.h"
#include "train/distill/settings.h"
#include "train/quantile.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

ErrorCode code_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::internal;
}

TEST(ReadinessTest, HysteresisAndReasons) {
  Readiness r;
  r.criteria = {0.1, 0};
  EXPECT_FALSE(r.refresh());
  EXPECT_NE(r.refusal().find("no cosine distance"), std::string::npos);
  const std::vector<std::pair<double, bool>> steps{
      {0.095, true}, {0.11, true}, {0.121, false}, {0.11, false}, {0.099, true}};
  for (const auto& [distance, ready] : steps) {
    r.ema_cosine_dist = distance;
    r.refresh();
    EXPECT_EQ(r.ready, ready) << distance;
    EXPECT_EQ(r.refusal().empty(), ready);
  }
  r.ema_cosine_dist = std::nan("");
  EXPECT_TRUE(r.refresh());
  EXPECT_FALSE(r.ready);
  r.criteria.min_updates = 5;
  r.ema_cosine_dist = 0;
  EXPECT_FALSE(r.refresh());
  EXPECT_NE(r.refusal().find("0 of 5"), std::string::npos);
}

TEST(RunEmaTest, FirstFlushTakesTheMeanAndLaterOnesDecay) {
  Readiness r;
  RunEma ema;
  for (const auto& [loss, distance] : {std::pair(0.2, 0.1), std::pair(0.4, 0.3)}) {
    ema.add_loss("3", loss, r);
    ema.add_similarity("3", 1 - distance);
  }
  const ByLayer<Readiness*> layers{{"3", &r}};
  const std::vector<EmaFlush> done = ema.flush(layers);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].layer, "3");
  EXPECT_EQ(done[0].losses, 2u);
  EXPECT_DOUBLE_EQ(*r.ema_loss, 0.3);
  EXPECT_DOUBLE_EQ(*r.ema_cosine_dist, 0.2);
  EXPECT_EQ(r.updates, 2);
  EXPECT_TRUE(ema.flush(layers).empty());
  ema.add_loss("3", 1.3, r);
  ema.add_similarity("3", std::nan(""));
  ema.flush(layers);
  EXPECT_DOUBLE_EQ(*r.ema_loss, 0.9 * 0.3 + 0.1 * 1.3);
  EXPECT_DOUBLE_EQ(*r.ema_cosine_dist, 0.2);
}

TEST(RunEmaTest, ARunBeginsWhereTheNoiseLevelJumps) {
  RunEma ema;
  EXPECT_FALSE(ema.begin_call(1.0));
  EXPECT_FALSE(ema.begin_call(0.7));
  EXPECT_FALSE(ema.begin_call(std::nullopt));
  EXPECT_FALSE(ema.begin_call(INFINITY));
  EXPECT_TRUE(ema.begin_call(1.2));
  EXPECT_TRUE(ema.begin_call(2.0));
  EXPECT_FALSE(ema.begin_call(3.0));  // exactly 1.5 times
}

TEST(RunEmaTest, TwentyLossesOverAllLayersAreDue) {
  Readiness a, b;
  RunEma ema;
  for (int i = 0; i < 19; ++i) ema.add_loss("0", 1, a);
  EXPECT_FALSE(ema.flush_due());
  ema.add_loss("1", 2, b);
  EXPECT_TRUE(ema.flush_due());
  EXPECT_EQ(ema.flush({{"0", &a}, {"1", &b}}).size(), 2u);
  EXPECT_EQ(a.ema_loss, 1.0);
  EXPECT_EQ(b.ema_loss, 2.0);
  EXPECT_EQ(ema.pending_losses("0"), 0u);
}

TEST(RunEmaTest, RestoredStateGoesOnWithTheSameBits) {
  Readiness a, b;
  RunEma ema;
  ema.begin_call(0.3);
  for (double x : std::vector<double>{0.1, 1.0 / 3, INFINITY}) {
    ema.add_loss("2", x, a);
    ema.add_similarity("2", 1 - x);
  }
  RunEma again;
  again.restore(io::parse_json(ema.to_json().dump(), "state"));
  b.updates = a.updates;
  ema.add_loss("2", 0.7, a);
  again.add_loss("2", 0.7, b);
  EXPECT_EQ(ema.begin_call(0.46), again.begin_call(0.46));
  ema.flush({{"2", &a}});
  again.flush({{"2", &b}});
  EXPECT_EQ(a.ema_loss, b.ema_loss);
  EXPECT_EQ(a.ema_cosine_dist, b.ema_cosine_dist);
  EXPECT_EQ(a.updates, b.updates);
  EXPECT_EQ(code_of([&] { again.restore(io::Json::array()); }), ErrorCode::format);
  EXPECT_EQ(code_of([&] {
              again.restore(io::parse_json(R"({"pending": [{"layer": 0, "losses": ["x"], "distances": []}]})",
                                           "state"));
            }),
            ErrorCode::format);
}

TEST(RunEmaTest, ParetoScoreIsBoundByTheWorstReadyLayer) {
  const auto layer = [](bool ready, std::optional<double> distance) {
    Readiness r;
    r.ready = ready;
    r.ema_cosine_dist = distance;
    return r;
  };
  ParetoScore p = pareto_score({{layer(true, 0.1), {}}, {layer(true, 0.6), {}}, {layer(false, 0.9), {}}});
  EXPECT_DOUBLE_EQ(p.score, 0.8);
  EXPECT_EQ(p.ready, 2);
  EXPECT_DOUBLE_EQ(p.worst, 0.6);
  EXPECT_DOUBLE_EQ(pareto_score({{layer(true, {}), 0.75}}).score, 0.75);
  EXPECT_EQ(pareto_score({{layer(true, {}), {}}}).score, 0);
  p = pareto_score({});
  EXPECT_EQ(p.score, 0);
  EXPECT_TRUE(std::isnan(p.worst));
}

ReplaySample sample(int64_t keys, float value = 1, int64_t queries = 2) {
  const auto filled = [&](int64_t rows) {
    return host_tensor(std::vector<float>(static_cast<size_t>(rows * 4), value), {1, 1, rows, 4},
                       io::FileDType::f16);
  };
  ReplaySample s;
  s.q_sub = filled(queries);
  s.k_full = filled(keys);
  s.v_full = filled(keys);
  s.teacher_sub = filled(queries);
  return s;
}

TEST(ReplayTest, LayersKeepTheirCapacityAndTheOldestGoesFirst) {
  ReplayBuffer replay(2, 0);
  for (int i = 0; i < 4; ++i) replay.push("0", sample(2));
  EXPECT_EQ(replay.size("0"), 2u);
  EXPECT_EQ(replay.at("0", 0).created, 3);
  EXPECT_EQ(replay.bytes(), 2 * sample(2).nbytes());
  EXPECT_EQ(code_of([&] { replay.at("0", 2); }), ErrorCode::invalid_argument);
  EXPECT_EQ(replay.clear("0"), 2 * sample(2).nbytes());
  EXPECT_EQ(replay.bytes(), 0u);
  EXPECT_TRUE(replay.layers().empty());
}

TEST(ReplayTest, OneBudgetForAllLayers) {
  const uint64_t one = sample(2).nbytes();
  ReplayBuffer replay(8, 3 * one);
  replay.push("0", sample(2));
  replay.push("1", sample(2));
  replay.push("0", sample(2));
  replay.push("2", sample(2));  // drops number 1
  EXPECT_EQ(replay.at("0", 0).created, 3);
  EXPECT_EQ(replay.bytes(), 3 * one);
  replay.push("1", sample(1000));  // larger than everything together
  EXPECT_EQ(replay.bytes(), 0u);
  EXPECT_EQ(replay.created(), 5);
}

TEST(ReplayTest, FilesKeepSamplesOrderAndNumbers) {
  TempFolder folder;
  ReplayBuffer replay(8, 1 << 20);
  for (int i = 0; i < 3; ++i) {
    ReplaySample s = sample(3, 0.25f * static_cast<float>(i), 1);
    if (i == 1) s.key_mask = {1, 0, 1};
    if (i != 2) s.context.sigma = 1.0 / 3;
    s.context.text = i;
    replay.push(std::to_string(i % 2), std::move(s));
  }
  replay.clear("5");
  std::vector<io::TensorData> tensors;
  const io::Json description = replay.save(tensors);
  const std::string path = folder.file("replay.safetensors");
  io::write_safetensors(path, tensors);
  ReplayBuffer again(8, 1 << 20);
  again.push("7", sample(2));
  again.restore(io::SafetensorsFile(path), description);
  EXPECT_EQ(again.layers(), (std::vector<std::string>{"0", "1"}));
  EXPECT_EQ(again.bytes(), replay.bytes());
  EXPECT_EQ(again.created(), 3);
  EXPECT_EQ(again.at("0", 1).created, 3);
  EXPECT_EQ(again.at("0", 1).k_full.values(), std::vector<float>(12, 0.5f));
  EXPECT_FALSE(again.at("0", 1).context.sigma);
  EXPECT_EQ(again.at("1", 0).key_mask, (std::vector<uint8_t>{1, 0, 1}));
  EXPECT_EQ(again.at("1", 0).context.sigma, 1.0 / 3);
  EXPECT_EQ(again.at("1", 0).context.text, 1);
  EXPECT_EQ(again.at("1", 0).k_full.shape, (std::vector<int64_t>{1, 1, 3, 4}));

  io::Json missing = description;
  missing["samples"][0]["created"] = 9;
  EXPECT_EQ(code_of([&] { again.restore(io::SafetensorsFile(path), missing); }), ErrorCode::format);
  for (io::TensorData& t : tensors) {
    if (t.name == "replay.2.key_mask") t = {t.name, io::FileDType::u8, {2}, std::vector<std::byte>(2)};
  }
  io::write_safetensors(path, tensors);
  EXPECT_EQ(code_of([&] { again.restore(io::SafetensorsFile(path), description); }), ErrorCode::format);
  EXPECT_EQ(again.bytes(), replay.bytes());  // unchanged by the refusals
}

TEST(ReplayTest, StorageRoundsAndClampsToTheLargest) {
  const HostTensor t = host_tensor(std::vector<float>{1e6f, 0.1f}, {2}, io::FileDType::f16);
  EXPECT_EQ(t.values()[0], 65504.0f);
  EXPECT_NEAR(t.values()[1], 0.1f, 1e-4);
  EXPECT_EQ(code_of([] { host_tensor(std::vector<float>{1}, {2}, io::FileDType::f32); }),
            ErrorCode::invalid_argument);
}

TEST(DegradeTest, AllSizesHalveDownToTheirFloors) {
  TrainingSizes s;
  const TrainingSizes start = s;
  EXPECT_TRUE(degrade(s));
  EXPECT_EQ(s, (TrainingSizes{64, 128, 512, 64, 512}));
  EXPECT_EQ(
      describe_degradation(start, s),
      "query cap 128 -> 64, query chunk 256 -> 128, key chunk 1024 -> 512, landmark maximum none -> 512");
  EXPECT_TRUE(degrade(s));
  EXPECT_EQ(s, (TrainingSizes{32, 64, 256, 64, 256}));
  s.landmark_max = 65;
  EXPECT_TRUE(degrade(s));
  EXPECT_EQ(s.landmark_max, 64);
  EXPECT_FALSE(degrade(s));
  s = {20, 30, 100, 600, 0};
  EXPECT_TRUE(degrade(s));
  EXPECT_EQ(s, (TrainingSizes{20, 30, 100, 600, 600}));
}

TEST(MemoryEstimateTest, FollowsTheFormula) {
  MemoryCall c{1, 24, 256, 4096, 128, 256, 256, 1024, 0, 77, 4, false};
  EXPECT_EQ(estimate_memory(c), 204562432u);
  c.landmark_max = 512;
  EXPECT_EQ(estimate_memory(c), 75280384u);
  c = {1, 24, 128, 4608, 128, 256, 256, 1024, 0, 512, 4, true};
  EXPECT_EQ(estimate_memory(c), 440546096u);
  EXPECT_EQ(memory_to_reserve(c), static_cast<uint64_t>(1.1 * 3 * (1 << 30)));
  c.heads = INT64_MAX;
  EXPECT_GE(estimate_memory(c), uint64_t{1} << 62);
}

TEST(DistillSettingsTest, SanitisesEveryField) {
  DistillSettings s;
  const io::Json defaults = s.to_json();
  s.sanitise();
  EXPECT_EQ(s.to_json(), defaults);
  s.merge(
      io::parse_json(
          R"({"steps": -1, "query_chunk_size": 0, "landmark_fraction": 7, "landmark_min": 0, "alpha_max": -1,
                  "huber_beta": 0, "replay_storage_dtype": "float8", "comet_log_every": 0, "min_swap_layers": -4,
                  "landmark_max": -5, "phi_lr_multiplier": -1, "unknown": 1})",
          "settings"),
      "settings");
  EXPECT_EQ(s.steps, 0);
  EXPECT_EQ(s.sizes.query_chunk, 1);
  EXPECT_EQ(s.landmark_fraction, 1);
  EXPECT_EQ(s.sizes.landmark_min, 1);
  EXPECT_EQ(s.sizes.landmark_max, 0);
  EXPECT_EQ(s.alpha_max, 0);
  EXPECT_EQ(s.huber_beta, 1e-6);
  EXPECT_EQ(s.replay_storage_dtype, "float16");
  EXPECT_EQ(s.log_every, 1);
  EXPECT_EQ(s.min_swap_layers, 0);
  EXPECT_EQ(s.phi_lr_multiplier, 0);
  EXPECT_EQ(s.sizes.key_chunk, 1024);  // not mentioned: kept
  s.cfg_scale = NAN;
  s.huber_beta = NAN;
  s.sanitise();
  EXPECT_EQ(s.cfg_scale, 1);
  EXPECT_EQ(s.huber_beta, 1e-6);
  EXPECT_EQ(code_of([&] { s.merge(io::Json{{"steps", "many"}}, "settings"); }), ErrorCode::format);
}

TEST(DistillSettingsTest, LayerRangeAndFeatureWidths) {
  DistillSettings s;
  EXPECT_TRUE(s.selects_layer(0));
  s.layer_start = 1;
  s.layer_end = 3;
  EXPECT_FALSE(s.selects_layer(0));
  EXPECT_TRUE(s.selects_layer(1));
  EXPECT_TRUE(s.selects_layer(3));
  EXPECT_FALSE(s.selects_layer(4));
  check_feature_dim(512, FeatureDimRule::reference);
  check_feature_dim(64, FeatureDimRule::ours);
  EXPECT_EQ(code_of([] { check_feature_dim(128, FeatureDimRule::reference); }), ErrorCode::invalid_argument);
  EXPECT_EQ(code_of([] { check_feature_dim(48, FeatureDimRule::ours); }), ErrorCode::invalid_argument);
}

TEST(QuantileTest, InterpolatesBetweenOrderStatistics) {
  EXPECT_DOUBLE_EQ(quantile({4, 1, 3, 2}, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile({NAN, 1, INFINITY, 3}, 0.5), 2);
  EXPECT_TRUE(std::isnan(quantile({}, 0.5)));
  const Quartiles q = quartiles({5});
  EXPECT_EQ(q.min, 5);
  EXPECT_EQ(q.p50, 5);
  EXPECT_EQ(q.max, 5);
}

}  // namespace
}  // namespace vkflux::test
