// `vkflux sample`: samplers, schedules and latents as flags, and what an interrupted run leaves.
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/cli/cli.h"
#include "app/cli/sample_sampling.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using test::vkflux;

class SamplingCli : public test::Cli {
 protected:
  std::string sample(const std::string& more, int seed = 3) const {
    return "sample --model \"" + test::tiny_pipeline() + "\" --seed " + std::to_string(seed) + " " + more;
  }
  std::vector<uint8_t> pixels(const std::string& name) const { return io::read_png(path(name)).rgba; }
};

TEST_F(SamplingCli, WrongFlagsExitWith2AndSayWhatThereIs) {
  const std::string out = " --prompt x --out " + path("x.png");
  for (const auto& [flags, words] : std::vector<std::pair<std::string, std::string>>{
           {"--sampler plms", "dpmpp_2m"},
           {"--schedule cosine", "kl_optimal"},
           {"--sigmas 1,0.5,0.7", "fall"},
           {"--sigmas 1,x,0", "noise level"},
           {"--sigmas 1,0.5,0 --steps 3", "--steps"},
           {"--sigmas 1,0.5,0 --schedule simple", "--schedule"},
           {"--shift 0", "--shift"},
           {"--shift 2 --max-shift 1", "--max-shift"},
           {"--from-latents a --from-noise b", "--from-noise"},
           {"--sweep steps=2,3 --save-latents a.safetensors", "--save-latents"}}) {
    const test::Result r = vkflux(sample(flags + out), "2>&1");
    EXPECT_EQ(r.code, kUsage) << flags << r.out;
    EXPECT_NE(r.out.find(words), std::string::npos) << flags << "\n" << r.out;
  }
  EXPECT_EQ(vkflux(sample("--from-latents " + path("none.safetensors") + out)).code, kBadFile);
}

TEST_F(SamplingCli, ReadsLevelsByHand) {
  EXPECT_EQ(parse_sigmas(" 1, 0.5 0.25,0"), (std::vector<double>{1, 0.5, 0.25, 0}));
  for (const char* bad : {"", "1", "1,1", "1,nan,0", "2,0", "1;0", "0,1"})
    EXPECT_THROW(parse_sigmas(bad), Error) << bad;
}

TEST_F(SamplingCli, LatentsGoOutAndIn) {
  const std::string latents = path("latents.safetensors");
  const test::Result drawn =
      vkflux(sample("--prompt cat --batch 2 --sampler unipc --schedule simple --steps 4 --out " + path("a") +
                    " --save-latents " + latents + " --json"));
  ASSERT_EQ(drawn.code, kOk) << drawn.out;
  const auto settings = nlohmann::json::parse(drawn.out).at("images")[0].at("settings");
  EXPECT_EQ(settings.at("sampler"), "unipc");
  EXPECT_EQ(settings.at("schedule"), "simple");
  const io::SafetensorsFile file(latents);
  EXPECT_EQ(file.info("latents").shape, (std::vector<int64_t>{2, 4, 4, 8}));
  EXPECT_EQ(file.info("noise").shape, (std::vector<int64_t>{2, 4, 4, 8}));
  EXPECT_EQ(file.read_f32("sigmas"), (std::vector<float>{1, 0.75f, 0.5f, 0.25f, 0}));
  EXPECT_EQ(file.metadata().at("step"), "4");
  ASSERT_EQ(vkflux(sample("--from-latents " + latents + " --out " + path("b"))).code, kOk);
  EXPECT_EQ(pixels("b/02-cat.png"), pixels("a/02-cat.png"));
  ASSERT_EQ(vkflux(sample("--prompt cat --sampler unipc --schedule simple --steps 4 --from-noise " + latents +
                              " --out " + path("c"),
                          9))
                .code,
            kOk);
  EXPECT_EQ(pixels("c/01-cat.png"), pixels("a/01-cat.png"));
  const std::string parameters = [&] {
    for (const auto& [key, text] : io::read_png_text(path("a/01-cat.png"))) {
      if (key == "parameters") return text;
    }
    return std::string();
  }();
  EXPECT_NE(parameters.find("Sampler: UniPC, Schedule type: simple,"), std::string::npos) << parameters;
}

// The first signal ends the run after its step, with the latents kept; the picture isn't there.
TEST_F(SamplingCli, AnInterruptedRunKeepsItsLatents) {
  const std::string command = std::string("exec \"") + VKFLUX_PROGRAM + "\" " +
                              sample("--prompt cat --steps 10000 --out " + path("x.png")) + " >/dev/null 2>" +
                              path("messages");
  const pid_t pid = fork();
  if (pid == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  const auto began = [&] {
    return std::filesystem::exists(path("messages")) &&
           io::read_file(path("messages")).find("sampling") != std::string::npos;
  };
  for (int i = 0; i < 6000 && !began(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // a step or more
  kill(pid, SIGINT);
  int status = -1;
  waitpid(pid, &status, 0);
  const std::string messages = io::read_file(path("messages"));
  ASSERT_TRUE(WIFEXITED(status)) << messages;
  EXPECT_EQ(WEXITSTATUS(status), kInterrupted) << messages;
  EXPECT_FALSE(std::filesystem::exists(path("x.png")));
  EXPECT_NE(messages.find("--from-latents"), std::string::npos) << messages;
  const io::SafetensorsFile file(path("x-unfinished.safetensors"));
  EXPECT_EQ(file.metadata().at("steps"), "10000");
  EXPECT_GT(std::stoi(file.metadata().at("step")), 0);
}

}  // namespace
}  // namespace vkflux::cli
