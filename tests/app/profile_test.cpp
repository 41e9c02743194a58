// `--profile` and `--profile-trace`: what they write adds up; replayed and eager runs draw the same picture.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/cli/cli.h"
#include "model/io/file.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::json;
using test::Result;
using test::vkflux;

class ProfileCli : public test::Cli {
 protected:
  std::string sample(const std::string& more) const {
    return "sample --model \"" + test::tiny_pipeline() + "\" --prompt \"a cat\" --seed 3 --out " +
           path("x.png") + " " + more;
  }
};

TEST_F(ProfileCli, TheTraceParsesAndAddsUpToTheTable) {
  const Result r = vkflux(sample("--profile --profile-trace " + path("t.json")), "2>&1");
  ASSERT_EQ(r.code, kOk) << r.out;
  const Json trace = Json::parse(io::read_file(path("t.json"), 64 << 20));
  EXPECT_GT(trace["otherData"]["timestamp_period_ns"].get<double>(), 0);
  double kernels = 0, last_end = 0;
  std::map<std::string, double> parts;
  std::set<std::string> names;
  for (const Json& e : trace["traceEvents"]) {
    EXPECT_EQ(e["ph"], "X");
    const double begin = e["ts"], length = e["dur"];
    EXPECT_GE(length, 0);
    if (e["cat"] == "part") {
      parts[e["name"]] += length;
      continue;
    }
    EXPECT_GE(begin, last_end - 1e-3) << "kernels follow one another";
    last_end = begin + length;
    kernels += length;
    names.insert(e["name"]);
  }
  EXPECT_GT(kernels, 0);
  EXPECT_GE(names.size(), 10u);
  for (const char* part : {"step 0", "step 1", "step 2", "double_blocks 0", "single_blocks 2", "final_layer"})
    EXPECT_GT(parts[part], 0) << part;
  EXPECT_GE(parts["step 1"], parts["double_blocks 0"] / 3 * 0.5);
  // The table's milliseconds, added up over the kernels, are the trace's.
  double table = 0;
  size_t at = r.out.find("kernel ");
  ASSERT_NE(at, std::string::npos) << r.out;
  const size_t end = r.out.find("\n\n", at);
  std::istringstream lines(r.out.substr(at, end - at));
  std::string line, name;
  std::getline(lines, line);
  EXPECT_NE(line.find("GFLOP/s"), std::string::npos);
  while (std::getline(lines, line)) {
    std::istringstream row(line);
    double calls = 0, ms = 0;
    row >> name >> calls >> ms;
    EXPECT_GE(calls, 1) << line;
    EXPECT_TRUE(names.count(name)) << name;
    table += ms;
  }
  EXPECT_NEAR(table, kernels * 1e-3, 0.01 * static_cast<double>(names.size()) + 0.001 * table);
  EXPECT_NE(r.out.find("step/single_blocks"), std::string::npos) << r.out;
}

TEST_F(ProfileCli, ProfiledAndUnreplayedRunsDrawTheSame) {
  ASSERT_EQ(vkflux(sample("")).code, kOk);
  const std::string plain = io::read_file(path("x.png"), 1 << 20);
  for (const char* flag : {"--no-replay", "--profile"}) {
    ASSERT_EQ(vkflux(sample(flag)).code, kOk);
    EXPECT_EQ(io::read_file(path("x.png"), 1 << 20), plain) << flag;
  }
}

TEST_F(ProfileCli, HelpTeachesIt) {
  for (const char* command : {"sample", "train flow", "distill", "train-controller"}) {
    const Result r = vkflux(std::string(command) + " --help");
    EXPECT_NE(r.out.find("--profile-trace"), std::string::npos) << command;
    EXPECT_NE(r.out.find("by kernel"), std::string::npos) << command;
  }
}

}  // namespace
}  // namespace vkflux::cli
