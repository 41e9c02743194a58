// The sequence of pictures that students are distilled from: left and taken up again in the middle of a run.
#include <gtest/gtest.h>

#include "model/io/safetensors.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "train/distill/run_sequence.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

/// The tiny checkpoint with another sampler.
class WithSampler final : public Model {
 public:
  explicit WithSampler(const SolverOptions& solver)
      : inner_(Pipeline::load(device(), tiny_pipeline())), info_(inner_->info()) {
    info_.solver = solver;
  }
  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<Backbone> backbone() override { return inner_->backbone(); }
  std::shared_ptr<LatentCodec> codec() override { return inner_->codec(); }
  Condition encode(const std::vector<std::string>& prompts) override { return inner_->encode(prompts); }

 private:
  std::unique_ptr<Pipeline> inner_;
  ModelInfo info_;
};

TEST(RunSequence, GoesOnInTheMiddleWithEverySampler) {
  const TempFolder folder;
  for (const char* name : {"euler", "euler_a", "dpmpp_3m", "unipc"}) {
    Pipeline pipeline(device(), std::make_unique<WithSampler>(sampler_row(name).options));
    SamplingPlan plan;
    plan.prompts = {"cat", "dog"};
    plan.steps = 5;
    plan.cfg = 1;
    RunSequence whole(pipeline, plan), resumed(pipeline, plan);
    for (int i = 0; i < 8; ++i) whole.step();  // three steps of the second run
    std::vector<io::TensorData> tensors;
    const io::Json state = whole.save(tensors);
    io::write_safetensors(folder.file("state.safetensors"), tensors);
    const io::SafetensorsFile file(folder.file("state.safetensors"));
    resumed.load(file, state);
    const auto latent = [](const RunSequence& runs) {
      std::vector<io::TensorData> all;
      runs.save(all);
      return all.at(0).bytes;
    };
    EXPECT_EQ(latent(resumed), latent(whole)) << name;
    whole.step();
    resumed.step();
    EXPECT_EQ(latent(resumed), latent(whole)) << name;
    if (std::string(name) != "unipc") continue;
    for (size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].name == "sampler.before") tensors.erase(tensors.begin() + static_cast<ptrdiff_t>(i--));
    }
    io::write_safetensors(folder.file("less.safetensors"), tensors);
    const io::SafetensorsFile less(folder.file("less.safetensors"));
    expect_error(ErrorCode::format, {"sampler.before"}, [&] { resumed.load(less, state); });
  }
}

}  // namespace
}  // namespace vkflux::test
