#include "train/experiment_key.h"

#include <gtest/gtest.h>

#include "train/metric_values.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

TEST(ExperimentKeyTest, KeepsLettersAndDigitsAndFillsUp) {
  EXPECT_EQ(normalise_experiment_key("nogit-20260211-104443"), "nogit20260211104443" + std::string(13, 'X'));
  EXPECT_EQ(normalise_experiment_key(std::string(60, 'a')), std::string(50, 'a'));
  EXPECT_EQ(normalise_experiment_key("été", {false, 4, 6}), "étéX");
  EXPECT_EQ(normalise_experiment_key("\xff!", {true, 32, 50}), "");
  const std::string random = normalise_experiment_key("--");
  EXPECT_EQ(random.size(), 35u);
  EXPECT_EQ(random.rfind("exp", 0), 0u);
  EXPECT_NE(random, normalise_experiment_key("--"));
  EXPECT_THROW(normalise_experiment_key("a", {false, 0, 5}), Error);
  EXPECT_THROW(normalise_experiment_key("a", {false, 6, 5}), Error);
}

TEST(ExperimentKeyTest, NewKeysHaveThirtyTwoCharactersAndDifferByTime) {
  const auto now = std::chrono::system_clock::time_point(std::chrono::microseconds(1770806683000042));
  const std::string key = new_experiment_key("1a2b3c4d5e", now, 123456);
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(key.substr(0, 7), "1a2b3c4");
  EXPECT_EQ(key.substr(21), "00004223456");
  EXPECT_NE(key, new_experiment_key("1a2b3c4d5e", now + std::chrono::microseconds(1), 123456));
  const std::string name = experiment_display_name("1a2b3c4d5e", now);
  EXPECT_EQ(name.size(), std::string("2026-02-11-104443-1a2b3c").size());
  EXPECT_EQ(name.substr(18), "1a2b3c");
}

TEST(MetricValuesTest, SecretsAreNeverLogged) {
  const io::Json flat = flatten_parameters(
      "training", {{"logging", {{"comet_api_key", "s3cret"}, {"log_every", 10}}}, {"layers", {0, 1}}});
  EXPECT_EQ(flat, (io::Json{{"training.logging.log_every", 10}, {"training.layers", "0,1"}}));
}

TEST(MetricValuesTest, CadenceHasTheFirstAndTheLastStep) {
  EXPECT_TRUE(should_log(1, 10, 25, true));
  EXPECT_FALSE(should_log(1, 10, 25, false));
  EXPECT_TRUE(should_log(20, 10, 25, false));
  EXPECT_TRUE(should_log(25, 10, 25, false));
  EXPECT_FALSE(should_log(24, 10, 25, false));
  EXPECT_FALSE(should_log(0, 1, 0, true));
}

}  // namespace
}  // namespace vkflux::test
