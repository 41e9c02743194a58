// What pictures of other programs say, as flags.
#include "app/picture_settings.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/harness/expect_error.h"

namespace vkflux {
namespace {

using Flags = std::map<std::string, std::string>;

Flags flags_of(const PictureSettings& s) {
  return {s.flags.begin(), s.flags.end()};
}

bool said(const PictureSettings& s, const std::string& word) {
  for (const std::string& sentence : s.left) {
    if (sentence.find(word) != std::string::npos) return true;
  }
  return false;
}

TEST(PictureSettings, Ours) {
  const PictureSettings s = vkflux_settings(
      R"({"prompt": "a, b", "negative": "", "seed": 18446744073709551615, "steps": 4, "guidance": 3.5, "cfg": 1,
          "width": 64, "height": 32, "noise": "philox", "model": "flux", "weights": "q8_0", "init": "a.png",
          "strength": 0.25, "composite": true, "quality_speed": 0.7, "nested": {"a": 1}, "none": null})");
  EXPECT_EQ(flags_of(s), (Flags{{"--prompt", "a, b"},
                                {"--negative", ""},
                                {"--seed", "18446744073709551615"},
                                {"--steps", "4"},
                                {"--guidance", "3.5"},
                                {"--cfg", "1"},
                                {"--size", "64x32"},
                                {"--noise", "philox"},
                                {"--weights", "q8_0"},
                                {"--strength", "0.25"},
                                {"--composite", "true"},
                                {"--quality-speed", "0.7"}}));
  EXPECT_TRUE(said(s, "init a.png"));
  EXPECT_TRUE(said(s, "nested"));
  EXPECT_TRUE(said(vkflux_settings("[1]"), "no JSON object"));
  test::expect_error(ErrorCode::format, {"vkflux"}, [] { vkflux_settings("{"); });
}

TEST(PictureSettings, A1111) {
  const PictureSettings s = a1111_settings(
      "a photo, Steps: not these\nof a cat\nNegative prompt: blue\nand red\nSteps: 20, Sampler: DPM++ 2M, "
      "Schedule "
      "type: Karras, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 42, Size: 896x1152, Model hash: abc, "
      "Model: "
      "\"flux, dev\", Denoising strength: 0.75, RNG: CPU, Lora hashes: \"a: b, c: d\", Version: f2.0");
  EXPECT_EQ(flags_of(s), (Flags{{"--prompt", "a photo, Steps: not these\nof a cat"},
                                {"--negative", "blue\nand red"},
                                {"--steps", "20"},
                                {"--sampler", "dpmpp_2m"},
                                {"--schedule", "karras"},
                                {"--cfg", "1"},
                                {"--guidance", "3.5"},
                                {"--seed", "42"},
                                {"--size", "896x1152"},
                                {"--strength", "0.75"},
                                {"--noise", "mersenne"}}));
  EXPECT_TRUE(said(s, "Lora hashes: a: b, c: d"));
  const PictureSettings other = a1111_settings("cat\nSteps: 3, Sampler: Restart, Seed: 1");
  EXPECT_TRUE(said(other, "Restart"));
  EXPECT_EQ(flags_of(other).at("--noise"), "philox");
  EXPECT_EQ(flags_of(a1111_settings("only words")).at("--prompt"), "only words");
  for (const char* odd :
       {"", "Steps: ", "Steps: 3, ", "\nSteps: :,:,", "Steps: 3, A: \"unclosed, B: \\", "Negative prompt:"})
    a1111_settings(odd);
}

constexpr const char* kSimple = R"({
  "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20, "cfg": 1.0, "sampler_name": "euler",
        "scheduler": "simple", "denoise": 1.0, "model": ["4", 0], "positive": ["35", 0], "negative": ["33", 0],
        "latent_image": ["27", 0]}, "is_changed": [NaN]},
  "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
  "33": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
  "35": {"class_type": "FluxGuidance", "inputs": {"guidance": 4.5, "conditioning": ["6", 0]}},
  "27": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 768, "batch_size": 1}}})";

TEST(PictureSettings, ComfyGraphs) {
  EXPECT_EQ(flags_of(comfy_settings(kSimple, false)), (Flags{{"--noise", "mersenne"},
                                                             {"--seed", "7"},
                                                             {"--steps", "20"},
                                                             {"--cfg", "1.0"},
                                                             {"--sampler", "euler"},
                                                             {"--schedule", "simple"},
                                                             {"--prompt", "a fox"},
                                                             {"--negative", ""},
                                                             {"--guidance", "4.5"},
                                                             {"--size", "1024x768"}}));
  const PictureSettings s = comfy_settings(R"({
    "13": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["25", 0], "guider": ["22", 0],
           "sampler": ["16", 0], "sigmas": ["17", 0], "latent_image": ["27", 0]}},
    "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": ["90", 0]}},
    "90": {"class_type": "PrimitiveInt", "inputs": {"value": 219670278747233}},
    "22": {"class_type": "BasicGuider", "inputs": {"conditioning": ["50", 0]}},
    "50": {"class_type": "ReferenceLatent", "inputs": {"conditioning": ["26", 0], "latent": ["7", 0]}},
    "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 2.5, "conditioning": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["91", 0]}},
    "91": {"class_type": "PrimitiveString", "inputs": {"value": "make it blue"}},
    "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "heun"}},
    "17": {"class_type": "BasicScheduler", "inputs": {"scheduler": "beta", "steps": 12, "denoise": 0.5}},
    "27": {"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0]}}})",
                                           false);
  EXPECT_EQ(flags_of(s), (Flags{{"--noise", "mersenne"},
                                {"--seed", "219670278747233"},
                                {"--guidance", "2.5"},
                                {"--prompt", "make it blue"},
                                {"--sampler", "heun"},
                                {"--steps", "12"},
                                {"--schedule", "beta"},
                                {"--strength", "0.5"}}));
  EXPECT_TRUE(said(s, "ReferenceLatent"));
  EXPECT_TRUE(said(s, "VAEEncode"));
}

TEST(PictureSettings, ComfyWorkflows) {
  const PictureSettings s = comfy_settings(R"({"nodes": [
      {"id": 3, "type": "KSampler", "inputs": [{"name": "positive", "link": 1}, {"name": "negative", "link": 2},
       {"name": "latent_image", "link": 3}], "widgets_values": [99, "randomize", 8, 2.5, "dpmpp_2m", "karras", 1]},
      {"id": 6, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["a boat"]},
      {"id": 7, "type": "CLIPTextEncode", "inputs": [], "widgets_values": ["mist"]},
      {"id": 5, "type": "EmptyLatentImage", "inputs": [], "widgets_values": [512, 640, 4]}],
      "links": [[1, 6, 0, 3, 1, "CONDITIONING"], [2, 7, 0, 3, 2, "CONDITIONING"], [3, 5, 0, 3, 3, "LATENT"]]})",
                                           true);
  EXPECT_EQ(flags_of(s), (Flags{{"--noise", "mersenne"},
                                {"--seed", "99"},
                                {"--steps", "8"},
                                {"--cfg", "2.5"},
                                {"--sampler", "dpmpp_2m"},
                                {"--schedule", "karras"},
                                {"--prompt", "a boat"},
                                {"--negative", "mist"},
                                {"--size", "512x640"}}));
  EXPECT_TRUE(said(s, "batch"));
}

TEST(PictureSettings, GraphsThatLieEndAndAreSaid) {
  const PictureSettings round = comfy_settings(
      R"({"1": {"class_type": "KSampler", "inputs": {"seed": ["2", 0], "positive": ["3", 0], "latent_image": ["1", 0]}},
          "2": {"class_type": "Seed", "inputs": {"value": ["2", 0]}},
          "3": {"class_type": "A", "inputs": {"conditioning": ["4", 0]}},
          "4": {"class_type": "B", "inputs": {"conditioning": ["3", 0]}}})",
      false);
  EXPECT_TRUE(said(round, "no text was found"));
  EXPECT_EQ(flags_of(round).count("--seed"), 0u);
  EXPECT_TRUE(said(comfy_settings("{}", false), "no sampler"));
  EXPECT_TRUE(said(comfy_settings("[]", false), "no JSON object"));
  for (
      const char* odd :
      {R"({"1": 3, "2": null, "3": {"class_type": 5, "inputs": []}})", R"({"1": {"class_type": "KSampler"}})",
       R"({"1": {"class_type": "KSampler", "inputs": {"positive": [["x"], 1], "seed": {}, "latent_image": [null, 0]}}})"}) {
    comfy_settings(odd, false);
    comfy_settings(odd, true);
  }
  for (
      const char* odd :
      {R"({"nodes": 3})", R"({"nodes": [1, {"id": [], "type": "KSampler", "inputs": [{}, {"name": 1}]}]})",
       R"({"nodes": [{"id": 1, "type": "KSampler", "widgets_values": {"seed": 1}}], "links": [[1], {}, 2]})"})
    comfy_settings(odd, true);
}

TEST(PictureSettings, TheBestTextIsTaken) {
  EXPECT_FALSE(picture_settings({}));
  EXPECT_FALSE(picture_settings({{"Title", "x"}}));
  const auto s = picture_settings({{"workflow", "{}"}, {"prompt", kSimple}, {"vkflux", "{ broken"}});
  ASSERT_TRUE(s);
  EXPECT_EQ(s->source, "ComfyUI");
  EXPECT_EQ(flags_of(*s).at("--prompt"), "a fox");
  EXPECT_TRUE(said(*s, "vkflux"));
  EXPECT_EQ(picture_settings({{"prompt", "a plain sentence"}})->source, "nobody");
}

}  // namespace
}  // namespace vkflux
