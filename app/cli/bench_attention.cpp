#include "app/cli/bench_attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/break_even.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Setup {
  bench::AttentionSetting setting;
  std::vector<bench::StudentSetup> students;
  std::vector<int64_t> tokens;
};

Setup checked(const AttentionBenchOptions& o) {
  const auto positive = [](const char* flag, int64_t x) {
    if (x < 1) throw Error(ErrorCode::invalid_argument, fmt::format("{} {} must be at least 1", flag, x));
  };
  Setup s{{1, o.heads, o.text, o.head_dim}, {}, o.tokens};
  positive("--heads", o.heads);
  if (o.text < 0) throw Error(ErrorCode::invalid_argument, fmt::format("--text {} is negative", o.text));
  for (const int64_t n : s.tokens) positive("--tokens", n);
  std::sort(s.tokens.begin(), s.tokens.end());
  s.tokens.erase(std::unique(s.tokens.begin(), s.tokens.end()), s.tokens.end());
  for (const std::string& text : o.students) {
    for (const int64_t cap : o.landmark_max) {
      if (cap < 0)
        throw Error(ErrorCode::invalid_argument, fmt::format("--landmark-max {} is negative", cap));
      s.students.push_back({bench::parse_student(text, o.head_dim), cap});
    }
  }
  return s;
}

Json to_json(const bench::Measured& m) {
  return {{"flops", m.flops}, {"bytes", m.bytes},         {"moved_bytes", m.moved},
          {"ms", m.ms},       {"median_ms", m.median_ms}, {"gflops", m.gflops()}};
}

std::string text_of(const bench::BreakEven& b) {
  const double n = std::round(b.image);
  switch (b.kind) {
    case bench::BreakEven::Kind::interpolated:
      return fmt::format("{:.0f} image tokens", n);
    case bench::BreakEven::Kind::extrapolated:
      return fmt::format("about {:.0f} image tokens (beyond the measured counts)", n);
    case bench::BreakEven::Kind::below:
      return fmt::format("below {:.0f} image tokens, the least measured", n);
    case bench::BreakEven::Kind::none:
      return "not within reach of the measured counts";
  }
  return "";
}

void print_row(const std::string& what, int64_t image, int64_t landmarks, const bench::Measured& m,
               double ratio) {
  print_out("{:<32}{:>8}{:>11}{:>11.3f}{:>9.2f}{:>11.3f}{:>10.2f}{:>9.2f}\n", what, image, landmarks,
            m.flops * 1e-9, m.bytes * 1e-6, m.ms, m.gflops(), ratio);
}

class Runner {
 public:
  Runner(const Common& common, Device& device, const Setup& setup, const bench::MeasureOptions& options)
      : common_(common), device_(device), setup_(setup), options_(options), probe_(device) {
    const auto all = static_cast<int64_t>((setup.students.size() + 1) * setup.tokens.size());
    progress_ = std::make_unique<Progress>("bench attention", all);
  }

  Json run() {
    if (!common_.json) {
      const Caps& caps = device_.caps();
      print_out("{} ({} class), {} heads of {}, {} text tokens\n\n", caps.device_name,
                name(device_.device_class()), setup_.setting.heads, setup_.setting.head_dim,
                setup_.setting.text);
      print_out("{:<32}{:>8}{:>11}{:>11}{:>9}{:>11}{:>10}{:>9}\n", "attention", "image", "landmarks", "GFLOP",
                "MB", "ms", "GFLOP/s", "speedup");
    }
    Json full = Json::array();
    for (const int64_t n : setup_.tokens) {
      full_.push_back(bench::measure_full(device_, setup_.setting, n, probe_, options_));
      if (!common_.json) print_row("full", n, 0, full_.back(), 1);
      Json row{{"image_tokens", n}, {"text_tokens", setup_.setting.text}};
      row.update(to_json(full_.back()));
      full.push_back(row);
      step("full");
    }
    Json students = Json::array();
    for (const bench::StudentSetup& s : setup_.students) students.push_back(student(s));
    return {{"full", full}, {"students", students}};
  }

 private:
  void step(const std::string& what) {
    check_interrupted("the measurement");
    ++done_;
    if (common_.json) progress_->update(done_, what);
  }

  Json student(const bench::StudentSetup& s) {
    Json rows = Json::array();
    std::vector<double> ratios;
    for (size_t i = 0; i < setup_.tokens.size(); ++i) {
      const int64_t n = setup_.tokens[i], text = setup_.setting.text;
      const bench::Measured m = bench::measure_student(device_, s, setup_.setting, n, probe_, options_);
      ratios.push_back(full_[i].ms / m.ms);
      const int64_t landmarks = landmark_count(text + n, text, s.options().landmarks);
      if (!common_.json) print_row(s.str(), n, landmarks, m, ratios.back());
      Json row{{"image_tokens", n}, {"text_tokens", text}, {"landmarks", landmarks}};
      row.update(to_json(m));
      row["speedup"] = ratios.back();
      row["speedup_by_flops"] = full_[i].flops / m.flops;
      rows.push_back(row);
      step(s.str());
    }
    const int64_t by_flops = bench::break_even_flops(s, setup_.setting);
    const bench::BreakEven by_time = bench::break_even_time(setup_.tokens, ratios);
    if (!common_.json) {
      print_out("  break-even by operations: {}; by measured time: {}\n",
                by_flops > 0 ? fmt::format("{} image tokens", by_flops) : "never", text_of(by_time));
    }
    Json time{{"kind", bench::name(by_time.kind)}};
    if (by_time.kind != bench::BreakEven::Kind::none) time["image_tokens"] = std::round(by_time.image);
    return {{"layers", s.config.layers},
            {"feature_dim", s.config.feature_dim},
            {"width", s.config.width()},
            {"landmark_max", s.landmark_max},
            {"rows", rows},
            {"break_even",
             {{"flops_image_tokens", by_flops > 0 ? Json(by_flops) : Json(nullptr)}, {"time", time}}}};
  }

  const Common& common_;
  Device& device_;
  const Setup& setup_;
  const bench::MeasureOptions& options_;
  bench::PeakProbe probe_;
  std::unique_ptr<Progress> progress_;
  std::vector<bench::Measured> full_;
  int64_t done_ = 0;
};

}  // namespace

void add_attention_options(CLI::App& command, AttentionBenchOptions& o) {
  const std::string group = "Of `bench attention`";
  command.add_option("--student", o.students, "students as layers:features:width")
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
  command.add_option("--landmark-max", o.landmark_max, "caps on the image landmarks; 0: none")
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
  command.add_option("--tokens", o.tokens, "numbers of image tokens to measure")
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
  command.add_option("--text", o.text, "text tokens in front")->capture_default_str()->group(group);
  command.add_option("--heads", o.heads, "attention heads")->capture_default_str()->group(group);
  command.add_option("--head-dim", o.head_dim, "numbers per head")->capture_default_str()->group(group);
}

int bench_attention(const Common& common, AttentionBenchOptions options,
                    const bench::MeasureOptions& measure) {
  const Setup setup = checked(options);
  const auto device = open_device(common);
  const Json results = Runner(common, *device, setup, measure).run();
  if (common.json) {
    const Caps& caps = device->caps();
    Json out{{"device", caps.device_name},
             {"class", name(device->device_class())},
             {"driver", caps.driver_name + " " + caps.driver_info},
             {"heads", setup.setting.heads},
             {"head_dim", setup.setting.head_dim},
             {"text_tokens", setup.setting.text}};
    out.update(results);
    print_out("{}\n", out.dump(1));
  }
  return kOk;
}

}  // namespace vkflux::cli
