// FLUX.2 from prompt to picture: what diffusers draws with tiny random pipelines, with and without reference
// pictures (tests/data/make_flux2_pipelines.py), by Pipeline.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "model/io/json.h"
#include "model/io/picture.h"
#include "model/pipeline.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using nlohmann::json;
using test::device;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2_pipelines/";

const json& cases() {
  static const json all = json(io::read_json(kData + "cases.json"));
  return all;
}

json case_named(const std::string& name) {
  for (const json& c : cases()) {
    if (c.at("name") == name) return c;
  }
  throw std::runtime_error(name);
}

RgbImage picture(const std::string& name) {
  return on_white(io::read_picture(kData + name).image);
}

std::unique_ptr<Pipeline> load(const json& c, ModelOptions options = {}) {
  options.text_tokens = c.at("tokens");
  std::string model = c.at("model");
  if (model == "klein-kv") {
    options.keep_references = true;
    model = "klein";
  }
  return Pipeline::load(device(), kData + model, options);
}

GenerateRequest request_of(const json& c) {
  GenerateRequest r;
  r.prompts = {c.at("prompt")};
  r.negative = {""};
  r.noise = NoiseMode::mersenne;
  r.seed = c.at("seed");
  r.batch = c.at("batch");
  r.steps = c.at("steps");
  r.width = c.at("width");
  r.height = c.at("height");
  (c.at("model") == "dev" ? r.guidance : r.cfg) = c.at("scale").get<float>();
  for (const int i : c.at("refs")) r.references.push_back(picture("ref" + std::to_string(i) + ".png"));
  return r;
}

int largest_difference(const RgbImage& a, const RgbImage& b) {
  if (a.width != b.width || a.height != b.height) return 256;
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
  return most;
}

TEST(Flux2Pipeline, DrawsWhatDiffusersDraws) {
  for (const json& c : cases()) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const GenerateResult r = load(c)->generate(request_of(c))->run();
    ASSERT_EQ(r.images.size(), c.at("images").size());
    for (size_t i = 0; i < r.images.size(); ++i)
      EXPECT_LE(largest_difference(r.images[i], picture(c.at("images")[i])), 1) << i;
  }
}

TEST(Flux2Pipeline, RecordedAndStreamedPassesGiveTheSameBits) {
  for (const char* name : {"klein-guided", "dev-references"}) {
    SCOPED_TRACE(name);
    const json c = case_named(name);
    GenerateRequest r = request_of(c);
    r.steps = 4;
    const std::vector<float> replayed = load(c)->generate(r)->run().latents.to_host();
    r.replay = false;
    EXPECT_EQ(load(c)->generate(r)->run().latents.to_host(), replayed);
    r.replay = true;
    const auto streamed = load(c);
    Residency residency = streamed->residency();
    for (const ModelPart& p : streamed->parts())
      residency.parts[p.name] = {false, std::vector<bool>(p.layers.size(), true)};
    const auto job = streamed->generate(r);
    streamed->set_residency(residency);
    EXPECT_EQ(job->run().latents.to_host(), replayed);
    for (const char* part : {"text_encoder", "transformer"})
      EXPECT_GT(streamed->residency().parts.at(part).streamed(), 0) << part;
  }
}

TEST(Flux2Pipeline, PackedWeightsStayClose) {
  const json c = case_named("dev");
  const std::vector<float> exact = load(c)->generate(request_of(c))->run().latents.to_host();
  ModelOptions options;
  options.weights = DType::q8_0;
  const std::vector<float> packed = load(c, options)->generate(request_of(c))->run().latents.to_host();
  double error = 0, power = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    error += (exact[i] - packed[i]) * (exact[i] - packed[i]);
    power += exact[i] * exact[i];
  }
  EXPECT_GT(error, 0);
  EXPECT_LT(error, 0.01 * power);
}

TEST(Flux2Pipeline, RefusesStatesThatTheEncoderHasNot) {
  const json c = case_named("klein");
  ModelOptions options;
  options.text_states = {9, 18};
  test::expect_error(ErrorCode::invalid_argument, {"36 numbers", "9, 18", "--text-states"},
                     [&] { load(c, options); });
  options.text_states = {9, 18, 29};
  test::expect_error(ErrorCode::invalid_argument, {"29", "--text-states"}, [&] { load(c, options); });
}

TEST(Flux2Pipeline, OtherStatesDrawAnotherPicture) {
  const json c = case_named("klein");
  ModelOptions options;
  options.text_states = {1, -2, 28};
  const GenerateResult other = load(c, options)->generate(request_of(c))->run();
  EXPECT_GT(largest_difference(other.images[0], picture(c.at("images")[0])), 1);
}

}  // namespace
}  // namespace vkflux
