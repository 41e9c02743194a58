// A host's options map, its masks, and who answers its calls.
#include "app/verify/host_options.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "model/attention/hkr/students.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Layers = std::vector<int64_t>;

CallOptions parse(const char* text) {
  return CallOptions(io::parse_json(text, "options"));
}

TEST(CallOptionsTest, TheMapComesBeforeTheSubMap) {
  const CallOptions o = parse(R"({"sigma": null, "flux2_ttr": {"sigma": 0.3, "current_sigma": 0.4},
                                  "sigmas": [[0.7, 0.1]]})");
  EXPECT_EQ(o.sigma(), 0.7);
  EXPECT_EQ(parse(R"({"flux2_ttr": {"sigma": 0.3}})").sigma(), 0.3);
  EXPECT_EQ(parse(R"({"flux2_ttr": {"scale": 0.3}})").cfg_scale(2), 2);
  EXPECT_EQ(parse(R"({"scale": 3, "flux2_ttr": {"cfg_scale": 5}})").cfg_scale(2), 3);
  EXPECT_FALSE(CallOptions(nullptr).sigma());
  EXPECT_FALSE(CallOptions(io::Json::array({1})).sigma());
}

TEST(CallOptionsTest, CountsAreWholeAndCapped) {
  EXPECT_EQ(parse(R"({"conditioning_token_count": 3.5, "cond_token_count": 9})").conditioning_tokens(5), 5);
  EXPECT_FALSE(parse(R"({"conditioning_token_count": "4"})").conditioning_tokens(5));
  EXPECT_EQ(parse(R"({"text_token_count": -1, "prefix_tokens": 4})").text_tokens(40, 7), 4);
  EXPECT_EQ(parse("{}").text_tokens(5, 7), 5);
  EXPECT_EQ(parse(R"({"width": 8, "flux2_ttr": {"w": 2, "h": 3}})").resolution(40, 4),
            std::pair(INT64_C(2), INT64_C(3)));
  EXPECT_EQ(parse("{}").resolution(41, 4), std::pair(INT64_C(37), INT64_C(1)));
  EXPECT_EQ(parse("{}").resolution(4, 9), std::pair(INT64_C(1), INT64_C(1)));
}

TEST(CallOptionsTest, StepsAreNamed) {
  const auto step = parse(R"({"current_step": 4, "sigma": 0.5})").step_id();
  ASSERT_TRUE(step);
  EXPECT_EQ(step->name, "current_step");
  EXPECT_EQ(step->value, 4);
  EXPECT_EQ(parse(R"({"sigma": 0.00000000005})").step_id()->value, 1e-10);
  EXPECT_FALSE(parse("{}").step_id());
}

TEST(CallOptionsTest, SingleLayersAreCollectedAndFiltered) {
  const CallOptions o = parse(R"({"single_layer_keys": ["single:9", "double:1", "single:x", 4],
                                  "flux2_ttr": {"num_single_blocks": 0, "single_block_count": 4}})");
  EXPECT_EQ(o.single_layers(-1, -1), (Layers{0, 1, 2, 3, 9}));
  EXPECT_EQ(o.single_layers(2, 8), (Layers{2, 3}));
  EXPECT_TRUE(parse(R"({"num_single_blocks": 9223372036854775807})").single_layers(-1, -1).empty());
}

TEST(CallOptionsTest, MasksKeepSomethingInEveryRow) {
  EXPECT_TRUE(key_mask_supported({2, 1, 1, 5}, 2, 5));
  EXPECT_FALSE(key_mask_supported({2, 1, 5, 5}, 2, 5));
  EXPECT_FALSE(key_mask_supported({5}, 2, 5));
  EXPECT_FALSE(key_mask_supported({}, 2, 5));
  const std::vector<uint8_t> mask{0, 7, 0, 0};
  EXPECT_EQ(boolean_key_mask(mask, 2, 2), (std::vector<uint8_t>{0, 1, 1, 0}));
  const std::vector<float> added{0, -INFINITY, std::numeric_limits<float>::lowest(), -65504.0f};
  EXPECT_EQ(additive_key_mask(added, 2, 2), (std::vector<uint8_t>{1, 0, 1, 0}));
  EXPECT_THROW(boolean_key_mask(mask, 2, 3), Error);
}

TEST(AlphaMigrationTest, OnlyUnmarkedProbabilitiesBecomeLogits) {
  EXPECT_NEAR(migrated_alpha(0.3f, "raw"), -0.847298f, 1e-6);
  EXPECT_EQ(migrated_alpha(0.3f, "logit"), 0.3f);
  EXPECT_EQ(migrated_alpha(-2, "raw"), -2);
  EXPECT_EQ(migrated_alpha(1, "raw"), 1);
  EXPECT_EQ(migrated_alpha(0, "raw"), 0);
}

TEST(CallOptionsTest, RouteMasksAreFlattened) {
  EXPECT_EQ(host_route_mask(io::Json::parse("[[0, 1], [true]]")), (std::vector<float>{0, 1, 1}));
  EXPECT_EQ(host_route_mask(io::Json(0.5)), (std::vector<float>{0.5f}));
  EXPECT_FALSE(host_route_mask(io::Json::parse("[0, \"a\"]")));
  EXPECT_FALSE(host_route_mask(nullptr));
}

}  // namespace
}  // namespace vkflux::test
