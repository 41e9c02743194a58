// Numbers on the command line: every flag with one has a range, and only decimal digits get through.
#include "app/numbers.h"

#include <gtest/gtest.h>

#include <functional>

#include "app/cli/cli.h"
#include "app/cli/numbers.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::cli {
namespace {

using test::expect_error;

/// All commands, none of which does anything.
class Commands {
 public:
  Commands() : app_(make_app()) { collect(*app_, {}); }
  const std::vector<std::vector<std::string>>& names() const { return names_; }
  CLI::App& get(const std::vector<std::string>& names) const {
    CLI::App* at = app_.get();
    for (const std::string& name : names) at = at->get_subcommand(name);
    return *at;
  }
  /// Whether a flag's value is refused as such. What else is missing on the line comes later.
  bool refuses(std::vector<std::string> line, const std::string& flag, const std::string& value) const {
    line.push_back(flag);
    line.push_back(value);
    std::vector<const char*> words{"vkflux"};
    for (const std::string& word : line) words.push_back(word.c_str());
    try {
      app_->parse(static_cast<int>(words.size()), words.data());
    } catch (const CLI::Success&) {
    } catch (const CLI::RequiredError&) {
    } catch (const CLI::RequiresError&) {
    } catch (const CLI::ParseError& e) {
      EXPECT_NE(std::string(e.what()).find(flag), std::string::npos) << e.what();
      return true;
    }
    return false;
  }

 private:
  void collect(CLI::App& app, const std::vector<std::string>& names) {
    // Thrown when a line was read, before the command's work.
    if (!names.empty()) app.parse_complete_callback([] { throw CLI::Success(); });
    for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
      std::vector<std::string> longer = names;
      longer.push_back(command->get_name());
      names_.push_back(longer);
      collect(*command, longer);
    }
  }

  std::unique_ptr<CLI::App> app_;
  std::vector<std::vector<std::string>> names_;
};

bool numeric(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT");
}

/// "" where the option has no range.
std::string range_of(CLI::Option& option) {
  try {
    for (int i = 0;; ++i) {
      CLI::Validator* check = option.get_validator(i);
      if (check->get_name() == kNumberCheck) return check->get_description();
    }
  } catch (const CLI::OptionNotFound&) {
    return {};
  }
}

TEST(NumericFlags, EveryOneHasARange) {
  const Commands commands;
  size_t seen = 0;
  for (const auto& name : commands.names()) {
    for (CLI::Option* option : commands.get(name).get_options()) {
      if (!numeric(*option)) continue;
      ++seen;
      EXPECT_NE(range_of(*option), "") << name.front() << " " << option->get_name();
    }
  }
  EXPECT_GT(seen, 100u);
}

TEST(NumericFlags, OnlyFiniteDecimalNumbersInRange) {
  const Commands commands;
  for (const auto& name : commands.names()) {
    for (CLI::Option* option : commands.get(name).get_options()) {
      if (!numeric(*option)) continue;
      const std::string flag = "--" + option->get_single_name();
      const std::string where = name.back() + " " + flag;
      for (const char* value : {"nan", "NaN", "inf", "-inf", "", " ", "1e999", "99999999999999999999", "5x",
                                "x5", "0x10", "+5", " 5", "5 ", "1_0",

                                "1e-999", "--", "18446744073709551616", "\xd9\xa3"}) {
        EXPECT_TRUE(commands.refuses(name, flag, value)) << where << " '" << value << "'";
      }
      if (option->get_delimiter() == '\0') {
        EXPECT_TRUE(commands.refuses(name, flag, "5,")) << where;
      }
      const bool whole = !option->get_type_name().starts_with("FLOAT");
      if (whole) {
        for (const char* value : {"1.5", "1e2", "5."})
          EXPECT_TRUE(commands.refuses(name, flag, value)) << where << " '" << value << "'";
      }
      const std::string range = range_of(*option);
      if (!range.starts_with("-")) {
        EXPECT_TRUE(commands.refuses(name, flag, "-1")) << where;
      }
      const std::string least = range.substr(0, range.find(' '));
      EXPECT_FALSE(commands.refuses(name, flag, least)) << where << " " << least;
    }
  }
}

TEST(NumericFlags, DefaultsAreInRange) {
  const Commands commands;
  for (const auto& name : commands.names()) {
    for (CLI::Option* option : commands.get(name).get_options()) {
      const std::string value = option->get_default_str();
      if (!numeric(*option) || value.empty() || value.front() == '[') continue;
      EXPECT_FALSE(commands.refuses(name, "--" + option->get_single_name(), value)) << option->get_name();
    }
  }
}

TEST(NumericFlags, ZerosInFrontAreDecimal) {
  uint64_t seed = 0;
  int64_t layer = 0;
  CLI::App app;
  app.add_option("--seed", seed)->transform(any_seed());
  app.add_option("--layer", layer)->transform(whole(-20, 20));
  const char* line[] = {"x", "--seed", "010", "--layer", "-010"};
  app.parse(5, line);
  EXPECT_EQ(seed, 10u);
  EXPECT_EQ(layer, -10);
  const char* largest[] = {"x", "--seed", "18446744073709551615", "--layer", "00"};
  app.parse(5, largest);
  EXPECT_EQ(seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(layer, 0);
}

TEST(NumericFlags, ListsAndSizes) {
  const Commands commands;
  struct Case {
    const char *command, *flag;
    std::vector<std::string> bad, good;
  };
  const Case cases[] = {{"sample",
                         "--size",
                         {"", "64", "64x", "x64", "64x64x64", "0x64", "64x0", "-64x64", "64x-64",
                          "4294967360x64", "64x4294967296", "1e2x64", "64X64", " 64x64", "64x64 ", "nanx64",
                          "99999999999999999999x64", "16385x64", "64.0x64"},
                         {"64x64", "70x70", "16384x1", "0064x64"}},
                        {"sample",
                         "--seeds",
                         {"", "-1", "1,2,1-4", "1;2", "1,,2", "18446744073709551616", "1.5", "nan", "0x10",
                          "random:1", "random:1:0", "random:1:x", "random:1:1000001", "random:1:2:5:4", "5x"},
                         {"0", "1,2,3", "18446744073709551615", "random:1:3", "010"}},
                        {"sample",
                         "--sweep",
                         {"",
                          "steps",
                          "steps=",
                          "steps=nan",
                          "steps=1.5,",
                          "steps=0,",
                          "steps=1e30,",
                          "cfg=inf,",
                          "cfg=-1,",
                          "quality-speed=2,",
                          "quality-speed=nan,",
                          "size=0",
                          "size=4294967360",
                          "size=64x4294967360",
                          "size=x",
                          "seed=-1",
                          "seed=18446744073709551616",
                          "strength=0,",
                          "colour=1,2",
                          "steps=5x,"},
                         {"steps=3", "steps=3,5", "size=64,64x32", "seed=1,2", "cfg=1.5,"}},
                        {"report", "--knob", {"nan,", "inf,", "-1,", "1.5,", "x", "0x1,"}, {"0,0.5,1"}},
                        {"report", "--fewer-steps", {"nan,", "1e30,", "1.5,", "-1,", "x"}, {"3,2"}},
                        {"report", "--size", {"64", "4294967360x64"}, {"64x64"}},
                        {"distill", "--size", {"64", "4294967360x64"}, {"64x64"}},
                        {"train-controller", "--size", {"64", "4294967360x64"}, {"64x64"}}};
  for (const Case& c : cases) {
    for (const std::string& value : c.bad)
      EXPECT_TRUE(commands.refuses({c.command}, c.flag, value)) << c.flag << " '" << value << "'";
    for (const std::string& value : c.good)
      EXPECT_FALSE(commands.refuses({c.command}, c.flag, value)) << c.flag << " '" << value << "'";
  }
}

TEST(Numbers, SayWhatIsExpected) {
  expect_error(ErrorCode::invalid_argument, {"--steps", "'5x'", "1 to 9"}, [] {
    whole_number("5x", Range<int64_t>{1, 9}, "--steps");
  });
  expect_error(ErrorCode::invalid_argument, {"--lr", "'nan'", "0 to 1"}, [] {
    real_number("nan", Range<double>{0, 1}, "--lr");
  });
  expect_error(ErrorCode::invalid_argument, {"--size", "4294967360", "16384"},
               [] { size_in_pixels("64x4294967360", "--size"); });
  EXPECT_EQ(size_in_pixels("70x64", "--size"), (std::pair<int64_t, int64_t>{70, 64}));
  EXPECT_EQ(whole_number("010", Range<uint64_t>{}, "seed"), 10u);
  EXPECT_EQ(real_number(".5", Range<double>{}, "x"), 0.5);
}

using test::Cli;

TEST_F(Cli, ContradictingNumbersExitWith2) {
  const std::string autoencoder = "train autoencoder --data " + path("d") + " --out " + path("o") + " ",
                    flow = "train flow --data " + path("d") + " --vae " + path("v") + " --out " + path("o") +
                           " ",
                    distill = "distill --model m --prompt x --out " + path("o") + " ";
  for (const std::string& line :
       {flow + "--heads 0", flow + "--hidden 100 --heads 3", flow + "--depth 0 --depth-single 0",
        flow + "--keywords 0.6 --tints 0.6", autoencoder + "--lr nan", autoencoder + "--lr -1",
        autoencoder + "--ema 1.5", autoencoder + "--groups 3", autoencoder + "--widths 16 nan",
        autoencoder + "--widths 16 32 30", distill + "--feature-dim 33", distill + "--hidden 33",
        distill + "--min-swap-layers 3 --max-swap-layers 2", distill + "--layer-start 3 --layer-end 2",
        distill + "--cfg nan"}) {
    const test::Result r = test::vkflux(line, "2>&1");
    EXPECT_EQ(r.code, kUsage) << line << "\n" << r.out;
    EXPECT_NE(r.out.find("--"), std::string::npos) << r.out;
  }
  EXPECT_FALSE(std::filesystem::exists(path("o")));
}

}  // namespace
}  // namespace vkflux::cli
