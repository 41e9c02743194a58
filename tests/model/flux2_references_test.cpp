// References that FLUX.2 reads once and keeps, against diffusers' pipeline of klein-kv
// (tests/data/make_flux2_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "model/flux2/transformer.h"
#include "model/sampler/run.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

class KeptReferences : public ::testing::Test {
 protected:
  const GoldenCase golden = GoldenCase::data("flux2/kept_references.safetensors");
  const io::NamedTensors file = golden.weights(io::flux2_names());
  Flux2 model{infer_flux2_config(shapes_of(file))};

  KeptReferences() {
    load(parameters(model), file, device());
    model.set_keep_references(true);
  }
  PassInputs inputs() {
    PassInputs in;
    in.x = golden.tensor("in.x");
    in.condition = {{"txt", golden.tensor("in.txt")}, {kReferenceTokens, golden.tensor("in.references")}};
    in.tokens.rows = 2;
    in.tokens.columns = 3;
    in.tokens.references = {{1, 4, 10}, {2, 1, 20}};
    model.prepare(in);
    return in;
  }
  static Tensor times(float a, float b) { return Tensor::from(device(), std::vector<float>{a, b}, {2}); }
};

TEST_F(KeptReferences, EveryStepIsThatOfDiffusers) {
  PassInputs in = inputs();
  in.t = times(0.875f, 0.5f);
  golden.check("out.first", model.forward(in));
  in.t = times(0.25f, 0.125f);
  golden.check("out.second", model.forward(in));
  model.set_keep_references(false);
  PassInputs anew = inputs();
  anew.t = in.t;
  const std::vector<float> other = model.forward(anew).to_host(), kept = golden.values("out.second");
  double difference = 0;
  for (size_t i = 0; i < kept.size(); ++i)
    difference = std::max(difference, std::fabs(static_cast<double>(kept[i]) - other[i]));
  EXPECT_GT(difference, 1e-2) << "reading them anew is something else";
}

TEST_F(KeptReferences, RecordedPassesHaveTheBitsOfOthers) {
  const auto sample = [&](bool replay) {
    SamplingOptions o;
    o.levels = {1, 0.8, 0.5, 0};
    o.rows = 2;
    o.columns = 3;
    o.replay = replay;
    o.references = {{1, 4, 10}, {2, 1, 20}};
    o.pictures = {{kReferenceTokens, golden.tensor("in.references")}};
    SamplingRun run(model, {{"txt", golden.tensor("in.txt")}}, {}, golden.tensor("in.x"), o);
    while (!run.finished()) run.step(RoutePlan(4, AttentionKind::hkr));
    return run.x().to_host();
  };
  EXPECT_EQ(sample(true), sample(false));
}

TEST_F(KeptReferences, GradientsReachThem) {
  Tape tape;
  PassInputs in = inputs();
  const Tensor references = in.condition[kReferenceTokens], cotangent = op::normal(device(), {2, 6, 8}, 3, 0);
  in.t = times(0.875f, 0.5f);
  tape.watch(references);
  const auto loss = [&] {
    model.prepare(in);
    return op::sum_all(op::mul(model.forward(in), cotangent));
  };
  Tensor value;
  {
    const auto scope = tape.record();
    value = loss();
  }
  const std::vector<float> g = tape.backward(value).of(references).to_host(), start = references.to_host();
  double norm2 = 0;
  for (const float x : g) norm2 += static_cast<double>(x) * x;
  const double h = 0.01 / std::sqrt(norm2);
  const auto shifted = [&](double by) {
    std::vector<float> moved(start);
    for (size_t i = 0; i < g.size(); ++i) moved[i] += static_cast<float>(by * g[i]);
    references.copy_from_host(std::span<const float>(moved));
    return static_cast<double>(loss().item());
  };
  EXPECT_NEAR((shifted(h) - shifted(-h)) / (2 * h) / norm2, 1, 0.02);
}

}  // namespace
}  // namespace vkflux
