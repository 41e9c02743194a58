// Quality against time: its figures, plots and the command.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/frontier.h"
#include "app/svg_plot.h"
#include "model/attention/hkr/students.h"
#include "model/io/file.h"
#include "tests/app/cli_fixture.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::cli {
namespace {

using test::vkflux;

class ReportCli : public test::Cli {};

TEST(Frontier, MeansByHand) {
  QualityMean q;
  EXPECT_TRUE(std::isinf(q.psnr()));
  q.add({0, 0.9, 1, 0.1}, {0.5, 3});
  q.add({0, 0.7, 1, 0.3}, {1, 4});
  EXPECT_NEAR(q.psnr(), -10 * std::log10((0.01 + 0.09) / 2), 1e-9);
  EXPECT_NEAR(q.latent_rmse(), std::sqrt(25.0 / 2), 1e-12);
  FrontierPoint p;
  p.series = "routed";
  p.knob = 0.25;
  p.seconds = {3, 1, 2};
  p.quality = q;
  EXPECT_EQ(p.median_seconds(), 2);
  EXPECT_EQ(p.label(), "quality-speed 0.25");
  EXPECT_NEAR(p.json().at("ssim").get<double>(), 0.8, 1e-12);
  EXPECT_NEAR(p.json().at("latent_cosine").get<double>(), 0.75, 1e-12);
}

TEST(Frontier, TicksAreRoundAndInside) {
  const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-9);
  };
  near(round_ticks(0, 10, 5), {0, 2, 4, 6, 8, 10});
  near(round_ticks(0.013, 0.049, 4), {0.02, 0.03, 0.04});
  near(round_ticks(-3, 3, 6), {-3, -2, -1, 0, 1, 2, 3});
  EXPECT_TRUE(round_ticks(1, 1, 5).empty());
}

TEST(Frontier, PlotsLeaveOutWhatIsNotFinite) {
  const std::string svg = svg_plot(
      {"a < b",
       "x",
       "y",
       {{"s", {{0, 1}, {1, std::numeric_limits<double>::infinity()}, {2, 3}}, {"first", "never", "last"}}}});
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find("first"), std::string::npos);
  EXPECT_NE(svg.find("last"), std::string::npos);
  EXPECT_EQ(svg.find("never"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg_plot({"", "x", "y", {}}).find("nan"), std::string::npos);
}

// Boxes of the texts, as wide as the plot takes them to be, against each other and the marks.
TEST(Frontier, LabelsCoverNeitherPointsNorEachOther) {
  Plot plot{"", "x", "y", {{"one", {}}, {"two", {}}}};
  for (int i = 0; i < 12; ++i) {  // in pairs that nearly touch
    plot.series[static_cast<size_t>(i % 2)].points.emplace_back(i / 2, i / 2 + 0.01 * (i % 2));
    plot.series[static_cast<size_t>(i % 2)].labels.push_back(fmt::format("{:.2f}", 0.25 * i));
  }
  const std::string svg = svg_plot(plot);
  struct Item {
    double x, y;
  };
  std::vector<Item> dots, labels;
  for (size_t at = 0; (at = svg.find("<circle cx='", at)) != std::string::npos; ++at) {
    Item d{};
    ASSERT_EQ(std::sscanf(svg.c_str() + at, "<circle cx='%lf' cy='%lf'", &d.x, &d.y), 2);
    dots.push_back(d);
  }
  for (size_t at = 0; (at = svg.find("<text x='", at)) != std::string::npos; ++at) {
    Item l{};
    ASSERT_EQ(std::sscanf(svg.c_str() + at, "<text x='%lf' y='%lf'", &l.x, &l.y), 2);
    if (svg.compare(svg.find("class='tick'", at) + 13, 5, "style") == 0) labels.push_back(l);
  }
  ASSERT_EQ(dots.size(), 12u);
  ASSERT_GE(labels.size(), 10u);
  constexpr double kWide = 24, kHigh = 9;
  for (size_t i = 0; i < labels.size(); ++i) {
    for (const Item& d : dots) {
      const bool covered =
          d.x > labels[i].x && d.x < labels[i].x + kWide && d.y < labels[i].y && d.y > labels[i].y - kHigh;
      EXPECT_FALSE(covered) << i;
    }
    for (size_t k = i + 1; k < labels.size(); ++k) {
      EXPECT_FALSE(std::abs(labels[i].x - labels[k].x) < kWide && std::abs(labels[i].y - labels[k].y) < kHigh)
          << i << " " << k;
    }
  }
  EXPECT_GT(svg.find(">two<"), svg.find("</text>"));
}

TEST_F(ReportCli, MeasuresTheKnobBesideFewerSteps) {
  const std::string students = path("ttr.safetensors");
  save_students(students, test::random_students(test::tiny_student_model(), true), io::FileDType::f32);
  const auto command = [&](const std::string& knob) {
    return "report --model \"" + test::tiny_pipeline() + "\" --ttr " + students +
           " --prompt \"a cat\" --prompt \"a dog\" --knob " + knob + " --fewer-steps 2, --repeat 2 --out " +
           path("report.html");
  };
  const auto r = vkflux(command("0,0.5,1") + " --json");
  ASSERT_EQ(r.code, kOk);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_FALSE(j.at("device").get<std::string>().empty());
  const auto& points = j.at("points");
  ASSERT_EQ(points.size(), 4u);  // 0.5 needs a controller
  EXPECT_EQ(points[0].at("series"), "full");
  EXPECT_TRUE(points[0].at("psnr").is_null());
  EXPECT_TRUE(points[1].at("psnr").is_null());  // the knob at 0 is full attention
  EXPECT_NEAR(points[1].at("ssim").get<double>(), 1, 1e-9);
  EXPECT_EQ(points[2].at("quality_speed"), 1);
  EXPECT_EQ(points[2].at("student_share"), 1);
  EXPECT_GT(points[2].at("latent_rmse").get<double>(), 0);
  EXPECT_EQ(points[3].at("series"), "fewer steps");
  EXPECT_GT(points[3].at("latent_rmse").get<double>(), 0);
  EXPECT_NEAR(points[3].at("flops").get<double>() / points[0].at("flops").get<double>(), 2.0 / 3, 0.02);
  for (const auto& p : points) {
    ASSERT_EQ(p.at("seconds").size(), 2u);
    EXPECT_GT(p.at("median_seconds").get<double>(), 0);
  }
  const std::string page = io::read_file(path("report.html"));
  for (const char* part : {"<svg", "quality-speed 1", "fewer steps", "a dog", "data:image/png;base64,"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  EXPECT_EQ(page.find("http"), std::string::npos);
  EXPECT_EQ(vkflux(command("2,")).code, kUsage);
}

TEST_F(ReportCli, NeedsStudentsAndPrompts) {
  EXPECT_EQ(vkflux("report --model \"" + test::tiny_pipeline() + "\" --prompt cat").code, kUsage);
  EXPECT_EQ(
      vkflux("report --model \"" + test::tiny_pipeline() + "\" --prompt cat --ttr " + path("absent")).code,
      kBadFile);
}

}  // namespace
}  // namespace vkflux::cli
