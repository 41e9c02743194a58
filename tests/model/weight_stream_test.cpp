// Weights that take turns in slots: the bits of a model whose weights are all there, eager and replayed, full
// and routed, in any order of the passes, and errors of the file reach whoever runs the pass.
#include "model/weight_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "autograd/ops.h"
#include "model/attention/hkr/students.h"
#include "model/flux/transformer.h"
#include "model/sampler/run.h"
#include "model/text/t5.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;

constexpr int kSteps = 3;

Flux1Config small() {
  Flux1Config c;
  c.in_channels = c.out_channels = 8;
  c.vec_in_dim = 32;
  c.context_in_dim = 64;
  c.hidden = 256;
  c.mlp_hidden = 512;
  c.heads = 8;
  c.head_dim = 32;
  c.depth = 2;
  c.depth_single = 3;
  c.axes_dim = {8, 12, 12};
  c.guidance = true;
  return c;
}

class WeightStreamTest : public ::testing::Test {
 protected:
  // Once for all tests.
  static void SetUpTestSuite() {
    folder_ = std::make_unique<test::TempFolder>();
    path_ = folder_->file("transformer.safetensors");
    Flux1 model(small());
    const auto params = parameters(model);
    allocate(params, device());
    initialise(
        params,
        [](const Param&) {
          return Init{Init::Kind::normal, 0.1f};
        },
        3);
    save(params, path_, io::flux1_names(), io::FileDType::bf16, flux1_row_split(small()));
  }
  static void TearDownTestSuite() { folder_.reset(); }
  WeightStreamTest() : students_(test::random_students(flux1_layout(small()), true)) {}
  /// streams: which of the parts; with this many slots.
  std::shared_ptr<Flux1> open(DType type, const std::vector<bool>& streams, size_t slots = 2,
                              uint64_t host_cache = 1 << 30, bool upload = false) {
    auto model = std::make_shared<Flux1>(small());
    const auto file = open_named(path_, io::flux1_names());
    const auto params = parameters(*model);
    std::vector<std::unique_ptr<WeightStream::Part>> parts(model->parts().size());
    std::vector<Param> here;
    for (const Param& p : params) {
      bool streamed = false;
      for (size_t i = 0; i < parts.size() && i < streams.size(); ++i) {
        const std::string& part = model->parts()[i].name;
        if (!streams[i] || !p.name.starts_with(part + ".")) continue;
        if (!parts[i]) parts[i] = std::make_unique<WeightStream::Part>(WeightStream::Part{part, {}});
        parts[i]->params.push_back(p);
        streamed = true;
      }
      if (!streamed) here.push_back(p);
    }
    load_checked(here, *file, device(), type, flux1_storage());
    stream_ = std::make_shared<WeightStream>(device(), file, type, flux1_storage(), std::move(parts),
                                             WeightStream::Options{slots, host_cache, upload});
    model->stream_weights(stream_);
    install(students_, model->attention());
    return model;
  }
  std::vector<float> sample(Flux1& model, bool replay, bool routed, float cfg = 1) {
    SamplingOptions o;
    for (int i = 0; i <= kSteps; ++i) o.levels.push_back(1 - static_cast<double>(i) / kSteps);
    o.rows = o.columns = 4;
    o.width = o.height = 64;
    o.replay = replay;
    o.cfg = cfg;
    const auto condition = [](uint64_t seed) {
      return Condition{{"txt", op::normal(device(), {1, 3, 64}, seed, 0)},
                       {"y", op::normal(device(), {1, 32}, seed, 1)}};
    };
    SamplingRun run(model, condition(1), condition(2), op::normal(device(), {1, 16, 8}, 5, 0), o);
    while (!run.finished()) {
      RoutePlan plan(model.layout().layers.size(), AttentionKind::full);
      if (routed && run.step_index() % 2) plan[2] = plan[4] = AttentionKind::hkr;
      run.step(plan);
    }
    return run.x().to_host();
  }

  static inline std::unique_ptr<test::TempFolder> folder_;
  static inline std::string path_;
  Students students_;
  std::shared_ptr<WeightStream> stream_;
};

const std::vector<bool> kAll(6, true);

TEST_F(WeightStreamTest, GivesTheBitsOfResidentWeightsInEveryType) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::f8_e4m3, DType::q8_0, DType::q4_k}) {
    const std::vector<float> whole = sample(*open(type, {}), true, true);
    EXPECT_EQ(sample(*open(type, kAll), true, true), whole) << name(type);
    EXPECT_GT(stream_->streamed_bytes(), kSteps * stream_->slot_bytes()) << name(type);
    // What the device packs, packed at every use.
    EXPECT_EQ(sample(*open(type, kAll, 2, 0), true, true), whole) << name(type);
  }
}

TEST_F(WeightStreamTest, SlotsReplayAndGuidanceChangeNothing) {
  const std::vector<float> whole = sample(*open(DType::bf16, {}), false, false, 2);
  for (const size_t slots : {1, 2, 3, 9}) {
    for (const bool replay : {false, true})
      EXPECT_EQ(sample(*open(DType::bf16, kAll, slots), replay, false, 2), whole) << slots << replay;
  }
  EXPECT_EQ(sample(*open(DType::bf16, {false, true, false, false, true, false}), true, false, 2), whole);
  EXPECT_EQ(sample(*open(DType::bf16, {true}), true, false, 2), whole);
}

TEST_F(WeightStreamTest, TheUploaderBringsTheSameBits) {
  const std::vector<float> whole = sample(*open(DType::q8_0, {}), true, true, 2);
  for (const size_t slots : {2, 3})
    EXPECT_EQ(sample(*open(DType::q8_0, kAll, slots, 1 << 30, true), true, true, 2), whole) << slots;
}

TEST_F(WeightStreamTest, SlotsThatHoldEverythingAreFilledOnce) {
  const auto model = open(DType::f16, {true, true, false, false, false, false}, 2);
  sample(*model, true, false);
  const uint64_t once = stream_->streamed_bytes();
  sample(*model, true, false);
  EXPECT_EQ(stream_->streamed_bytes(), once);
}

TEST_F(WeightStreamTest, AnotherOrderIsFollowed) {
  const auto model = open(DType::bf16, kAll);
  for (const size_t part : {4, 0, 0, 5, 3, 3, 1, 2, 0}) model->acquire(part);
  const std::vector<float> whole = sample(*open(DType::bf16, {}), true, false);
  EXPECT_EQ(sample(*model, true, false), whole);
}

TEST_F(WeightStreamTest, SmallAllocationsMakeSlotsOfSeveralPieces) {
  device().set_limits({.allocation = 2 << 20});
  const std::vector<float> streamed = sample(*open(DType::f32, kAll), true, false);
  device().set_limits({});
  EXPECT_EQ(streamed, sample(*open(DType::f32, {}), true, false));
}

TEST_F(WeightStreamTest, AFileThatShrinksIsAnError) {
  const std::string own = folder_->file("own") + "/transformer.safetensors", whole = path_;
  std::filesystem::create_directory(folder_->file("own"));
  std::filesystem::copy_file(path_, own);
  path_ = own;
  const auto model = open(DType::bf16, kAll);
  path_ = whole;
  std::filesystem::resize_file(own, std::filesystem::file_size(own) / 4);
  test::expect_error(ErrorCode::format, {"transformer.safetensors", "ends early"},
                     [&] { sample(*model, true, false); });
}

TEST(WeightStreamText, T5GivesTheSameBits) {
  T5Config config;
  config.vocab = 64;
  config.width = 64;
  config.layers = 4;
  config.heads = 2;
  config.head_dim = 32;
  config.mlp = 96;
  T5Encoder whole(config);
  const auto params = parameters(whole);
  allocate(params, device());
  initialise(params, t5_init(config), 9);
  const test::TempFolder folder;
  const std::string path = folder.file("t5.safetensors");
  save(params, path, io::t5_names(), io::FileDType::f16);
  T5Encoder resident(config), streamed(config);
  load(parameters(resident), *open_named(path, io::t5_names()), device(), DType::f16, t5_storage());
  std::vector<std::string> parts;
  for (int i = 0; i < 4; ++i) parts.push_back("encoder.block." + std::to_string(i));
  streamed.stream_weights(load_streamed(parameters(streamed), parts, {true, true, true, true},
                                        open_named(path, io::t5_names()), device(), DType::f16,
                                        t5_storage()));
  const TokenIds ids{{3, 5, 7, 1, 0, 0}};
  EXPECT_EQ(streamed.forward(ids).to_host(), resident.forward(ids).to_host());
  EXPECT_EQ(streamed.forward(ids).to_host(), resident.forward(ids).to_host());
}

}  // namespace
}  // namespace vkflux
