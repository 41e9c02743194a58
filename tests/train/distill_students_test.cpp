// Files of students: what is written comes back, what belongs elsewhere is refused with both values, and
// damage is an error.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <random>

#include "autograd/ops.h"
#include "model/attention/hkr/students.h"
#include "model/attention/run.h"
#include "model/io/file.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kHead = 16, kFeatures = 32;
const BackboneLayout kModel = student_layout(2, kHead, 1, 3);

Students make_students() {
  Students s;
  s.model = kModel;
  s.config.head_dim = kHead;
  s.config.feature_dim = kFeatures;
  s.options.landmarks.min = 2;
  s.options.landmarks.fraction = 0.25;
  s.options.gamma = 1.5f;
  s.fields = io::Json{{"learning_rate", 0.001}};
  for (int i = 0; i < 3; ++i) {
    auto student = std::make_shared<Student>();
    student->layer = std::make_shared<HkrLayer>(s.config, s.options);
    const auto params = parameters(*student->layer);
    allocate(params, device());
    initialise(params, hkr_init(s.config), static_cast<uint64_t>(i));
    student->readiness.updates = 30 + i;
    student->readiness.ema_loss = 0.5;
    student->readiness.ema_cosine_dist = i == 2 ? 0.5 : 0.1;
    student->readiness.refresh();
    student->last_loss = i == 1 ? std::numeric_limits<double>::quiet_NaN() : -0.25;
    s.layers["single_blocks." + std::to_string(i)] = student;
  }
  return s;
}

class StudentsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("vkflux_students_" + std::to_string(getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::string refusal(const std::string& file, const BackboneLayout& model, ErrorCode code) {
    try {
      load_students(device(), path(file), model);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      return e.what();
    }
    ADD_FAILURE() << "not refused";
    return "";
  }
  fs::path dir_;
};

TEST_F(StudentsTest, ComeBackAsTheyWere) {
  const Students a = make_students();
  EXPECT_EQ(a.ready(), (std::vector<int>{0, 1}));
  save_students(path("a"), a, io::FileDType::f32);
  const Students b = load_students(device(), path("a"), kModel);
  EXPECT_EQ(b.ready(), a.ready());
  EXPECT_EQ(b.config.feature_dim, kFeatures);
  EXPECT_EQ(b.options.landmarks.min, 2);
  EXPECT_EQ(b.options.landmarks.fraction, 0.25);
  EXPECT_EQ(b.options.gamma, 1.5f);
  EXPECT_EQ(b.fields["learning_rate"], 0.001);
  for (const auto& [i, student] : a.layers) {
    const auto want = parameters(*student->layer), got = parameters(*b.layers.at(i)->layer);
    for (size_t p = 0; p < want.size(); ++p) {
      EXPECT_EQ(want[p].tensor->to_host(), got[p].tensor->to_host()) << want[p].name;
    }
    EXPECT_EQ(b.layers.at(i)->readiness.updates, student->readiness.updates);
    EXPECT_EQ(b.layers.at(i)->readiness.ema_cosine_dist, student->readiness.ema_cosine_dist);
  }
  EXPECT_TRUE(std::isnan(b.layers.at("single_blocks.1")->last_loss));
  save_students(path("b"), b, io::FileDType::f32);
  EXPECT_EQ(io::read_file(path("a")), io::read_file(path("b")));
}

TEST_F(StudentsTest, AnotherModelIsRefusedWithBothValues) {
  save_students(path("a"), make_students(), io::FileDType::f16);
  const auto other = [&](const BackboneLayout& model) {
    return refusal("a", model, ErrorCode::invalid_argument);
  };
  const auto names = [](const std::string& message, const std::string& a, const std::string& b) {
    EXPECT_NE(message.find(a), std::string::npos) << message;
    EXPECT_NE(message.find(b), std::string::npos) << message;
  };
  names(other(student_layout(2, 64, 1, 3)), "16 in the file", "64 in the model");
  names(other(student_layout(7, kHead, 1, 3)), "2 in the file", "7 in the model");
  names(other(student_layout(2, kHead, 1, 5)), "3 in the file", "5 in the model");
  names(other(student_layout(2, kHead, 4, 3)), "1 in the file", "4 in the model");
  BackboneLayout family = kModel;
  family.family = "flux2";
  names(other(family), "flux1", "flux2");
}

TEST_F(StudentsTest, ALossAboveTheSafeOneIsRefused) {
  Students s = make_students();
  const AttentionShape shape{1, 2, 1, 4, kHead};
  const auto refusal_of = [&](double loss, double safe) {
    s.layers.at("single_blocks.0")->last_loss = loss;
    return HkrAttention(s.layers.at("single_blocks.0"), safe).refusal(shape);
  };
  EXPECT_EQ(refusal_of(0.5, 0.5), "");
  EXPECT_NE(refusal_of(0.51, 0.5).find("0.51"), std::string::npos);
  EXPECT_EQ(refusal_of(0.51, 0), "") << "no guard";
  EXPECT_EQ(refusal_of(std::numeric_limits<double>::quiet_NaN(), 0.5), "") << "no loss yet";
  s.max_safe_loss = 0.25;
  save_students(path("a"), s, io::FileDType::f32);
  EXPECT_EQ(load_students(device(), path("a"), kModel).max_safe_loss, 0.25);
}

TEST_F(StudentsTest, LayersAreNamedAndOrdered) {
  for (const auto& [layer, key] : {std::pair{"single_blocks.7", "single:7"},
                                   {"double_blocks.12", "double:12"},
                                   {"layers.3", "layers.3"},
                                   {"_blocks.3", "_blocks.3"},
                                   {"x_blocks.", "x_blocks."}}) {
    EXPECT_EQ(layer_key(layer), key);
    EXPECT_EQ(layer_of_key(key), layer);
  }
  const ByLayer<int> order{{"b.10", 3}, {"b.2", 2}, {"a.11", 1}, {"b.10.x", 4}, {"c", 5}};
  int last = 0;
  for (const auto& [name, place] : order) EXPECT_EQ(place, ++last) << name;
}

TEST_F(StudentsTest, FeatureDimOfTheMetadataMustBeTheTensors) {
  std::vector<io::TensorData> tensors;
  std::map<std::string, std::string> metadata;
  append_students(make_students(), io::FileDType::f32, tensors, metadata);
  io::Json fields = io::parse_json(metadata["ttr"], "test");
  fields["feature_dim"] = 256;
  metadata["ttr"] = fields.dump();
  io::write_safetensors(path("a"), tensors, metadata);
  const std::string message = refusal("a", kModel, ErrorCode::format);
  EXPECT_NE(message.find("256"), std::string::npos) << message;
  EXPECT_NE(message.find("32"), std::string::npos) << message;
  metadata["format"] = "flux2_ttr_v1";
  io::write_safetensors(path("b"), tensors, metadata);
  EXPECT_NE(refusal("b", kModel, ErrorCode::format).find("flux2_ttr_v1"), std::string::npos);
}

TEST_F(StudentsTest, ReferenceNamesAreImportedAndRawAlphaMigrated) {
  std::vector<io::TensorData> tensors, foreign;
  std::map<std::string, std::string> metadata;
  append_students(make_students(), io::FileDType::f32, tensors, metadata);
  for (io::TensorData t : tensors) {
    t.name = t.name.substr(std::string("layers.").size());
    if (t.name == "single:0.alpha") t = io::tensor_data(t.name, {}, std::vector<float>{0.3f});
    if (t.name == "single:1.alpha") t = io::tensor_data(t.name, {}, std::vector<float>{-2.0f});
    foreign.push_back(t);
  }
  io::write_safetensors(path("raw"), foreign);
  const Students raw = load_students(device(), path("raw"), kModel);
  EXPECT_NEAR(raw.layers.at("single_blocks.0")->layer->alpha.item(), -0.847298f, 1e-6f);
  EXPECT_EQ(raw.layers.at("single_blocks.1")->layer->alpha.item(), -2.0f);
  EXPECT_TRUE(raw.ready().empty());
  io::write_safetensors(path("logit"), foreign, {{"alpha_format", "logit"}});
  EXPECT_EQ(load_students(device(), path("logit"), kModel).layers.at("single_blocks.0")->layer->alpha.item(),
            0.3f);
  EXPECT_NE(
      refusal("raw", student_layout(2, kHead, 1, 2), ErrorCode::invalid_argument).find("single_blocks.2"),
      std::string::npos);
}

TEST_F(StudentsTest, DamagedFilesAreErrors) {
  save_students(path("good"), make_students(), io::FileDType::f16);
  const std::string good = io::read_file(path("good"));
  std::mt19937 rng(5);
  for (int i = 0; i < 60; ++i) {
    std::string bad = good;
    if (i % 3 == 0) {
      bad.resize(rng() % bad.size());
    } else {
      for (int k = 0; k < 4; ++k) bad[rng() % 6000] = static_cast<char>(rng());
    }
    io::atomic_write(path("bad"), bad);
    try {
      load_students(device(), path("bad"), kModel);
    } catch (const Error&) {
      continue;  // any typed error will do
    }
    EXPECT_NE(i % 3, 0) << "a file cut short was read";
  }
}

TEST_F(StudentsTest, OnlyReadyStudentsServe) {
  const Students s = make_students();
  AttentionBank bank(kModel.layers);
  install(s, bank);
  TokenLayout tokens;
  tokens.text = 3;
  tokens.image = 9;
  const Tensor q = op::normal(device(), {1, 2, 12, kHead}, 1, 0),
               k = op::normal(device(), {1, 2, 12, kHead}, 2, 0),
               v = op::normal(device(), {1, 2, 12, kHead}, 3, 0);
  StepInfo step;
  step.sigma = 0.5f;
  AttentionRun run(device(), bank);
  run.step(RoutePlan(4, AttentionKind::hkr), [&] {
    const AttentionPass pass = run.pass(1, tokens);
    for (int layer = 0; layer < 4; ++layer) {
      const AttentionCall call{q, k, v, tokens, layer, step};
      const bool same = pass.forward(call).to_host() == FullAttention().forward(call).to_host();
      // Layer 0 is a double block, layer 3 the student that isn't ready.
      EXPECT_EQ(same, layer == 0 || layer == 3) << layer;
    }
    return Tensor();
  });
  EXPECT_NE(run.served()[3].refusal.find("ready"), std::string::npos) << run.served()[3].refusal;
}

}  // namespace
}  // namespace vkflux::test
