// What a training step must not do once it is warm: allocate blocks, make kernels, copy to change a layout,
// wait for the device where no metric was asked for.
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "model/flux/rope.h"
#include "model/flux/transformer.h"
#include "tests/harness/gpu.h"
#include "train/distill/student_trainer.h"
#include "train/trainer.h"

namespace vkflux::test {
namespace {

struct Work {
  StreamCounters stream;
  PoolCounters pool;
  size_t kernels;
};

Work now() {
  device().stream().sync();
  return {device().stream().counters(), device().pool().counters(), device().kernels().size()};
}

void expect_steady(const Work& before, uint64_t relayouts, uint64_t downloads) {
  const Work after = now();
  EXPECT_EQ(after.pool.blocks, before.pool.blocks) << "device allocations";
  EXPECT_EQ(after.kernels, before.kernels);
  EXPECT_EQ(after.stream.relayouts - before.stream.relayouts, relayouts) << "hidden copies";
  EXPECT_EQ(after.stream.uploads, before.stream.uploads);
  EXPECT_EQ(after.stream.downloads - before.stream.downloads, downloads);
}

// Flow matching of a small transformer on random latents.
class Flow final : public Trainer {
 public:
  explicit Flow(const TrainOptions& options) : Trainer(device(), options), model_(config()) {
    auto params = parameters(model_);
    allocate(params, device());
    initialise(params, flux1_init(), 1);
    std::vector<Trainable> list;
    for (const Param& p : params) list.push_back({p.name, p.tensor});
    adopt(list);
    const Flux1Config c = config();
    rope_ = rope_table(device(), flux1_ids(3, 2, 4), 1, c.axes_dim, c.theta);
  }

 protected:
  static Flux1Config config() {
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
    c.guidance = false;
    return c;
  }
  Tensor loss(int64_t step, int64_t, std::map<std::string, Tensor>&) override {
    const auto stream = static_cast<uint64_t>(8 * step);
    PassInputs in;
    in.x = op::normal(device_, {2, 8, 8}, 1, stream);
    in.condition = {{"txt", op::normal(device_, {2, 3, 20}, 1, stream + 1)},
                    {"y", op::normal(device_, {2, 12}, 1, stream + 2)}};
    in.t = op::uniform(device_, {2}, 1, stream + 3);
    in.positions = rope_;
    return op::mse(model_.forward(in), op::normal(device_, {2, 8, 8}, 1, stream + 4));
  }

 private:
  Flux1 model_;
  Tensor rope_;
};

TEST(SteadyStep, OfFlowMatching) {
  TrainOptions o;
  o.steps = 20;
  o.log_every = 10;
  o.ema = 0.9f;
  Flow flow(o);
  for (int i = 0; i < 4; ++i) flow.step();
  const Work before = now();
  for (int i = 0; i < 3; ++i) flow.step();
  expect_steady(before, 0, 0);
  while (flow.steps_done() < 10) flow.step();
  EXPECT_EQ(now().stream.downloads - before.stream.downloads, 1u) << "one readback for ten steps' metrics";
}

TEST(SteadyStep, OfAStudent) {
  HkrConfig config;
  config.head_dim = 16;
  config.feature_dim = 32;
  HkrLayer layer(config);
  auto params = parameters(layer);
  allocate(params, device());
  initialise(params, hkr_init(config), 1);
  StudentTrainer trainer(device(), layer, {});
  LossWeights weights(device());
  TeacherSample s;
  s.call.q = op::normal(device(), {1, 2, 24, 16}, 1, 0);
  s.teacher = op::normal(device(), {1, 2, 24, 16}, 1, 1);
  s.call.k = op::normal(device(), {1, 2, 40, 16}, 1, 2);
  s.call.v = op::normal(device(), {1, 2, 40, 16}, 1, 3);
  s.call.context.text = 4;
  s.call.context.sigma = 0.5f;
  for (int i = 0; i < 3; ++i) trainer.update(s, weights);
  const Work before = now();
  trainer.update(s, weights);
  expect_steady(before, 0, 1);
}

}  // namespace
}  // namespace vkflux::test
