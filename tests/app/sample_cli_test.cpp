// `vkflux sample` with students: routing, comparing, tracing, sweeping.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/sweep/seeds.h"
#include "model/io/file.h"
#include "model/io/png.h"
#include "model/routing/controller.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/gpu.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::json;
using test::Result;
using test::vkflux;

class SampleCli : public test::Cli {
 protected:
  std::string model() const { return "\"" + test::tiny_pipeline() + "\""; }
  std::string sample(const std::string& more) const {
    return "sample --model " + model() + " --prompt \"a cat\" --seed 3 " + more;
  }
  std::string students(bool ready) const {
    const std::string file = path(ready ? "ready.safetensors" : "unready.safetensors");
    save_students(file, test::random_students(test::tiny_student_model(), ready), io::FileDType::f32);
    return file;
  }
  std::string controller() const {
    ControllerConfig config;
    config.layers = 3;
    ControllerNet net(config);
    auto params = parameters(net);
    allocate(params, test::device());
    initialise(params, controller_init(config), 1);
    save_controller(path("controller.safetensors"), net, test::tiny_student_model());
    return path("controller.safetensors");
  }
  Json json(const std::string& args) const {
    const Result r = vkflux(args + " --json");
    EXPECT_EQ(r.code, kOk) << args;
    return r.code == kOk ? Json::parse(r.out) : Json();
  }
  std::vector<uint8_t> pixels(const std::string& name) const { return io::read_png(path(name)).rgba; }
};

TEST_F(SampleCli, ContradictingFlagsExitWith2) {
  const std::string ttr = "--ttr " + students(true) + " --out " + path("x.png") + " ";
  for (const std::string& flags : std::vector<std::string>{
           "--compare", "--quality-speed 1", "--controller x", "--layers 0", "--sweep quality-speed=0,1",
           "--sweep strength=0.5,1", "--sweep colour=1,2", "--sweep steps=2,3 --trace t.json",
           "--sweep steps=2,3 --batch 2", "--seeds x", "--seeds 1,2 --sweep seed=1,2",
           ttr + "--quality-speed 0.5", ttr + "--quality-speed 2", ttr + "--layers 0,x", ttr + "--layers 9",
           ttr + "--layers 0 --quality-speed 1", ttr + "--policy sometimes",
           ttr + "--controller " + controller() + " --layers 0"}) {
    const Result r = vkflux(sample(flags), "2>&1");
    EXPECT_EQ(r.code, kUsage) << flags << "\n" << r.out;
  }
  EXPECT_FALSE(std::filesystem::exists(path("x.png")));
}

TEST_F(SampleCli, BadFilesExitWith4) {
  EXPECT_EQ(vkflux(sample("--ttr " + path("absent"))).code, kBadFile);
  EXPECT_EQ(vkflux(sample("--ttr " + file("bad.safetensors", "abc"))).code, kBadFile);
  EXPECT_EQ(vkflux(sample("--ttr " + students(true) + " --controller " + path("bad.safetensors"))).code,
            kBadFile);
  EXPECT_EQ(vkflux("sample --model " + model() + " --prompts " + file("p.json", R"(["a", 1])")).code,
            kBadFile);
}

TEST_F(SampleCli, UnreadyStudentsChangeNothing) {
  ASSERT_EQ(vkflux(sample("--out " + path("full.png"))).code, kOk);
  // Summaries go to stderr.
  const Result r = vkflux(sample("--ttr " + students(false) + " --quality-speed 1 --controller " +
                                 controller() + " --policy threshold --out " + path("routed.png")),
                          "2>&1 >/dev/null");
  ASSERT_EQ(r.code, kOk) << r.out;
  EXPECT_EQ(pixels("routed.png"), pixels("full.png"));
  EXPECT_NE(r.out.find("step 3/3"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("threshold 0.900"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("student none (0 of 3)"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("refused"), std::string::npos) << r.out;
}

TEST_F(SampleCli, TheKnobIsTheShareOfTheStudents) {
  const std::string routed = "--ttr " + students(true) + " --controller " + controller();
  for (int k = 0; k <= 4; ++k) {  // 3 steps of 3 layers
    const std::string flags =
        fmt::format("{} --quality-speed {} --out {}", routed, k / 4.0, path("knob.png"));
    const Result r = vkflux(sample(flags + " --json"), "2>&1 >/dev/null");
    const auto planned = std::lround(9 * k / 4.0);
    EXPECT_NE(r.out.find(fmt::format("to serve {} of 9 attention calls", planned)), std::string::npos)
        << r.out;
    int64_t served = 0;
    const Json report = json(sample(flags));
    for (const Json& step : report.at("steps")) served += static_cast<int64_t>(step.at("student").size());
    EXPECT_EQ(served, planned);
  }
  EXPECT_EQ(vkflux(sample(routed + " --policy-temperature 2")).code, kUsage);
  EXPECT_EQ(vkflux(sample(routed + " --sweep policy-temperature=1,2")).code, kUsage);
  EXPECT_EQ(vkflux(sample("--ttr " + students(true) + " --policy threshold")).code, kUsage);
}

TEST_F(SampleCli, ComparesWithFullAttention) {
  const std::string out = " --compare --out " + path("a.png");
  const Json unready = json(sample("--ttr " + students(false) + out)).at("images").at(0).at("compare");
  EXPECT_TRUE(unready.at("identical").get<bool>());
  EXPECT_TRUE(unready.at("psnr").is_null());
  EXPECT_EQ(unready.at("latent_rmse"), 0);
  EXPECT_EQ(unready.at("student_share"), 0);
  const Json j = json(sample("--ttr " + students(true) + out));
  const Json c = j.at("images").at(0).at("compare");
  EXPECT_FALSE(c.at("identical").get<bool>());
  EXPECT_GT(c.at("latent_rmse").get<double>(), 0);
  EXPECT_EQ(c.at("student_share"), 1);
  EXPECT_GT(c.at("routed_step_ms").get<double>(), 0);
  EXPECT_GT(c.at("full_flops").get<double>(), 0);
  EXPECT_NE(c.at("routed_flops"), c.at("full_flops"));
  EXPECT_EQ(j.at("steps").size(), 3u);
  EXPECT_EQ(j.at("steps")[1].at("student"), Json({0, 1, 2}));
  EXPECT_EQ(Json::parse(io::read_file(path("a-compare.json"))).at("compare").at("psnr"), c.at("psnr"));
  const io::Image8 side = io::read_png(path("a-compare.png"));
  EXPECT_GT(side.width, 3 * 16);
  const auto full = pixels("a-full.png"), routed = pixels("a.png"), difference = pixels("a-difference.png");
  for (size_t i = 0; i < full.size(); i += 4)
    EXPECT_EQ(difference[i], std::min(255, 4 * std::abs(int{full[i]} - int{routed[i]})));
}

TEST_F(SampleCli, TracesEveryAttention) {
  json(sample("--ttr " + students(true) + " --layers 0,2 --steps 2 --trace " + path("t.json") + " --out " +
              path("a.png")));
  const Json t = Json::parse(io::read_file(path("t.json")));
  EXPECT_EQ(t.at("replaceable_layers"), 3);
  ASSERT_EQ(t.at("steps").size(), 2u);
  for (const Json& step : t.at("steps")) {
    ASSERT_EQ(step.at("layers").size(), 2u * 4);  // two passes for the guidance
    for (const Json& layer : step.at("layers")) {
      const std::string block = layer.at("name");
      const bool student = block == "single_blocks.0" || block == "single_blocks.2";
      EXPECT_EQ(layer.at("kind"), student ? "hkr" : "full") << block;
      EXPECT_GT(layer.at("ms").get<double>(), 0);
      EXPECT_GT(layer.at("flops").get<double>(), 0);
      EXPECT_EQ(layer.at("flops") == layer.at("full_flops"), !student);
    }
    EXPECT_EQ(step.at("layers")[7].at("pass"), 1);
    EXPECT_EQ(step.at("layers")[7].at("name"), "single_blocks.2");
  }
}

TEST_F(SampleCli, TheKnobIsDeterministicAndMatters) {
  const std::string flags = "--ttr " + students(true) + " --controller " + controller() + " --out ";
  const Json slow = json(sample(flags + path("slow.png") + " --quality-speed 0")),
             fast = json(sample(flags + path("fast.png") + " --quality-speed 1")),
             again = json(sample(flags + path("again.png") + " --quality-speed 1"));
  size_t few = 0, many = 0;
  for (size_t s = 0; s < 3; ++s) {
    few += slow.at("steps")[s].at("student").size();
    many += fast.at("steps")[s].at("student").size();
    EXPECT_EQ(fast.at("steps")[s].at("student"), again.at("steps")[s].at("student"));
  }
  EXPECT_LT(few, many);
  EXPECT_EQ(pixels("again.png"), pixels("fast.png"));
  EXPECT_EQ(slow.at("images")[0].at("settings").at("quality_speed"), 0);
}

TEST_F(SampleCli, SweepsMakeASheetAndATable) {
  const Json j =
      json("sample --model " + model() + " --prompts " + file("p.json", R"(["a cat", "a, dog"])") +
           " --seeds random:7:2 --sweep steps=1,2 --sweep cfg=1,3 --sweep-mode product --out " + path("out"));
  ASSERT_EQ(j.at("images").size(), 2u * 2 * 4);
  const std::vector<uint64_t> seeds = parse_seeds("random:7:2");
  const Json& last = j.at("images")[15];
  EXPECT_EQ(last.at("prompt"), "a, dog");
  EXPECT_EQ(last.at("seed").get<uint64_t>(), seeds[1]);
  EXPECT_EQ(last.at("steps"), 2);
  EXPECT_EQ(last.at("cfg"), 3);
  EXPECT_EQ(j.at("images")[1].at("cfg"), 3);
  EXPECT_EQ(j.at("images")[1].at("steps"), 1);
  EXPECT_TRUE(std::filesystem::exists(last.at("file").get<std::string>()));
  EXPECT_EQ(Json::parse(io::read_file(path("out/table.json"))), j);
  const std::string csv = io::read_file(path("out/table.csv"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 17);
  EXPECT_NE(csv.find("\"a, dog\""), std::string::npos);
  const io::Image8 sheet = io::read_png(path("out/sheet.png"));
  EXPECT_EQ(sheet.width, 2 * (144 + 6) + 6);  // as many columns as the last list has values
  // A picture of the table can be drawn again from its row.
  const Json again = json("sample --model " + model() + " --prompt \"a, dog\" --steps 2 --cfg 3 --seed " +
                          std::to_string(seeds[1]) + " --out " + path("again.png"));
  EXPECT_EQ(pixels("again.png"), io::read_png(last.at("file").get<std::string>()).rgba);
}

TEST_F(SampleCli, SweepsTheKnobAgainstFullAttention) {
  const Json j = json(sample("--ttr " + students(true) + " --sweep quality-speed=0,1 --compare --html " +
                             path("page.html") + " --out " + path("out")));
  ASSERT_EQ(j.at("images").size(), 2u);
  EXPECT_TRUE(j.at("images")[0].at("identical").get<bool>());
  EXPECT_FALSE(j.at("images")[1].at("identical").get<bool>());
  EXPECT_EQ(j.at("images")[0].at("attention_flops"), j.at("images")[0].at("full_attention_flops"));
  EXPECT_EQ(j.at("images")[1].at("student_share"), 1);
  const std::string page = io::read_file(path("page.html"));
  EXPECT_NE(page.find("difference"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);  // self-contained
  size_t pictures = 0;
  for (size_t at = 0; (at = page.find("data:image/png", at)) != std::string::npos; ++at) ++pictures;
  EXPECT_EQ(pictures, 5u);
}

}  // namespace
}  // namespace vkflux::cli
