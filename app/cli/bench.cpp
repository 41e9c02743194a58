#include <fmt/format.h>

#include "app/cli/bench_attention.h"
#include "app/cli/cli.h"
#include "bench/cases.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string topic = "kernels", suite = "all", filter;
  bool full = false;
  bench::MeasureOptions measure;
  AttentionBenchOptions attention;
};

std::vector<bench::Case> collect(Device& device, const Options& o) {
  const bool small = device.device_class() == DeviceClass::cpu && !o.full;
  const bench::Sizes sizes = small ? bench::Sizes::small() : bench::Sizes::full();
  std::vector<bench::Case> cases;
  if (o.suite != "blocks") {
    bench::add_linear(cases, device, sizes);
    bench::add_attention(cases, device, sizes);
    bench::add_pointwise(cases, device, sizes);
    bench::add_images(cases, device, sizes);
  }
  if (o.suite != "ops") bench::add_blocks(cases, device, sizes);
  std::erase_if(cases, [&](const bench::Case& c) {
    return (c.name + " " + c.shape).find(o.filter) == std::string::npos;
  });
  if (cases.empty())
    throw Error(ErrorCode::invalid_argument,
                fmt::format("nothing to measure matches --filter '{}'", o.filter));
  return cases;
}

Json to_json(const bench::Row& r) {
  return {{"name", r.name},       {"shape", r.shape},   {"kernels", r.kernels},
          {"repeats", r.repeats}, {"p10_ms", r.p10_ms}, {"median_ms", r.median_ms},
          {"p90_ms", r.p90_ms},   {"flops", r.flops},   {"bytes", r.bytes},
          {"gflops", r.gflops},   {"gbs", r.gbs},       {"share_of_peak", r.share}};
}

int run(const Common& common, const Options& o) {
  const auto device = open_device(common);
  const Caps& caps = device->caps();
  const std::vector<bench::Case> cases = collect(*device, o);
  const bench::Peaks peaks = bench::measure_peaks(*device);
  Json rows = Json::array();
  Progress progress("bench", static_cast<int64_t>(cases.size()));
  if (!common.json) {
    fmt::print("{} ({} class), {} {}\npeak: {:.1f} GFLOP/s of multiply-adds in registers, {:.1f} GB/s\n\n",
               caps.device_name, name(device->device_class()), caps.driver_name, caps.driver_info,
               peaks.gflops, peaks.gbs);
    fmt::print("{:<24}{:<26}{:>9}{:>9}{:>9}{:>10}{:>8}{:>7}  {}\n", "what", "shape", "ms", "p10", "p90",
               "GFLOP/s", "GB/s", "peak", "kernels");
  }
  int64_t done = 0;
  for (const bench::Case& c : cases) {
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
    const bench::Row r = bench::measure(*device, c, peaks, o.measure);
    rows.push_back(to_json(r));
    if (!common.json) {
      fmt::print("{:<24}{:<26}{:>9.3f}{:>9.3f}{:>9.3f}{:>10.2f}{:>8.2f}{:>6.0f}%  {}\n", r.name, r.shape,
                 r.median_ms, r.p10_ms, r.p90_ms, r.gflops, r.gbs, 100 * r.share, r.kernels);
    } else {
      progress.update(++done, c.name);
    }
  }
  if (common.json) {
    const Json out{{"device", caps.device_name},
                   {"class", name(device->device_class())},
                   {"driver", caps.driver_name + " " + caps.driver_info},
                   {"peaks", {{"gflops", peaks.gflops}, {"gbs", peaks.gbs}}},
                   {"rows", rows}};
    fmt::print("{}\n", out.dump(1));
  }
  return kOk;
}

}  // namespace

void add_bench(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(app, "bench", "measure ops and whole blocks against the device's own peaks",
                            "vkflux bench --suite ops --filter linear", common, [common, o] {
                              return o->topic == "attention"
                                         ? bench_attention(*common, o->attention, o->measure)
                                         : run(*common, *o);
                            });
  c->add_option("topic", o->topic,
                "kernels: ops and blocks; attention: students against full attention, with break-even points")
      ->capture_default_str()
      ->check(CLI::IsMember({"kernels", "attention"}));
  c->add_option("--suite", o->suite, "what to measure")
      ->capture_default_str()
      ->check(CLI::IsMember({"ops", "blocks", "all"}));
  c->add_option("--filter", o->filter, "only rows whose name and shape contain this");
  c->add_flag("--full", o->full, "sizes of FLUX.1 at 1024x1024 also on a CPU (slow)");
  c->add_option("--seconds", o->measure.seconds, "time for the repeats of a row")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  add_attention_options(*c, o->attention);
}

}  // namespace vkflux::cli
