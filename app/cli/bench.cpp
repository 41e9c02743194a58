#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <optional>

#include "app/cli/bench_attention.h"
#include "app/cli/bench_record.h"
#include "app/cli/cli.h"
#include "bench/cases.h"
#include "model/io/file.h"

namespace vkflux::cli {
namespace {

constexpr const char* kModel = "models/emoji";

struct Options {
  std::string topic = "kernels", suite = "all", filter, model, compare, plot, csv;
  bool full = false, list = false;
  bench::MeasureOptions measure;
  AttentionBenchOptions attention;
};

/// The checkpoint folder for the suite of steps; empty when nobody asked for one and ours isn't here.
std::string model_folder(const Options& o) {
  if (!o.model.empty()) return o.model;
  return std::filesystem::exists(kModel) ? kModel : "";
}

std::string full_name(const bench::Case& c) {
  return c.name + " " + c.shape + " " + c.dtype;
}

/// True when the name contains one of the filter's parts, which commas separate; an empty filter takes all.
bool matches(const std::string& name, const std::string& filter) {
  for (size_t at = 0; at <= filter.size();) {
    const size_t end = std::min(filter.find(',', at), filter.size());
    if (name.find(filter.substr(at, end - at)) != std::string::npos) return true;
    at = end + 1;
  }
  return false;
}

std::vector<bench::Case> collect(Device& device, const Options& o) {
  std::vector<bench::Case> cases;
  const auto wanted = [&](const char* suite) { return o.suite == suite || o.suite == "all"; };
  if (wanted("ops")) {
    bench::add_linear(cases, device);
    bench::add_attention(cases, device);
    bench::add_pointwise(cases, device);
    bench::add_images(cases, device);
  }
  if (wanted("blocks")) bench::add_blocks(cases, device);
  if (wanted("step")) bench::add_steps(cases, device, model_folder(o));
  if (wanted("train")) bench::add_training(cases, device);
  const bool full = o.full || device.device_class() != DeviceClass::cpu;
  std::erase_if(cases,
                [&](const bench::Case& c) { return (c.big && !full) || !matches(full_name(c), o.filter); });
  if (cases.empty()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("nothing to measure matches --filter '{}'; --list shows what there is{}",
                            o.filter, full ? "" : ", --full adds the large sizes"));
  }
  return cases;
}

void print_head(const BenchRecord& record, bool compare) {
  print_out("{} ({} class), {}\npeak: {:.1f} GFLOP/s of multiply-adds in registers, {:.1f} GB/s\n\n",
            record.device, record.device_class, record.driver, record.peaks.gflops, record.peaks.gbs);
  print_out("{:<24}{:<38}{:<6}{:>10}{:>10}{:>10}{:>9}{:>8}{:>7}{:>9}{}  {}\n", "what", "shape", "dtype", "ms",
            "p10", "p90", "GFLOP/s", "GB/s", "limit", "error", compare ? "  faster" : "", "kernels");
}

void print_row(const bench::Row& r, const std::optional<EarlierRecord>& earlier) {
  std::string ratio;
  if (earlier) {
    const double before = earlier->ms(r);
    ratio = before > 0 ? fmt::format("{:>7.2f}x", before / r.median_ms) : fmt::format("{:>8}", "new");
  }
  print_out("{:<24}{:<38}{:<6}{:>10.3f}{:>10.3f}{:>10.3f}{:>9.2f}{:>8.2f}{:>6.0f}%{:>9}{}  {}\n", r.name,
            r.shape, r.dtype, r.median_ms, r.p10_ms, r.p90_ms, r.gflops, r.gbs, 100 * r.share,
            r.checked ? fmt::format("{:.1e}{}", r.max_error, r.right() ? "" : "!") : "-", ratio, r.variant);
  flush_out();
}

/// Measures all cases. Returns the first error of a row that couldn't be measured; the others are, all the
/// same.
std::exception_ptr measure_all(Device& device, bench::PeakProbe& probe, const std::vector<bench::Case>& cases,
                               const Options& o, bool json, const std::optional<EarlierRecord>& earlier,
                               BenchRecord& record) {
  Progress progress("bench", static_cast<int64_t>(cases.size()));
  std::exception_ptr failed;
  for (size_t i = 0; i < cases.size(); ++i) {
    check_interrupted("the measurement");
    try {
      const ErrorContext context(full_name(cases[i]));
      record.rows.push_back(bench::measure(device, cases[i], probe, o.measure));
    } catch (const Error& e) {
      if (e.code() == ErrorCode::device_lost || e.code() == ErrorCode::cancelled) throw;
      spdlog::error("{}: the row is left out", e.what());
      if (!failed) failed = std::current_exception();
      continue;
    }
    if (json) {
      progress.update(static_cast<int64_t>(i) + 1, cases[i].name);
    } else {
      print_row(record.rows.back(), earlier);
    }
  }
  record.peaks = probe.best();
  return failed;
}

void compare_with(nlohmann::ordered_json& j, const EarlierRecord& earlier, const BenchRecord& record) {
  for (size_t i = 0; i < record.rows.size(); ++i) {
    const double before = earlier.ms(record.rows[i]);
    if (!(before > 0)) continue;
    j["rows"][i]["earlier_ms"] = before;
    j["rows"][i]["faster"] = before / record.rows[i].median_ms;
  }
}

int run(const Common& common, const Options& o) {
  std::optional<EarlierRecord> earlier;
  if (!o.compare.empty()) earlier.emplace(o.compare);
  const auto device = open_device(common);
  const Caps& caps = device->caps();
  const std::vector<bench::Case> cases = collect(*device, o);
  if (o.list) {
    for (const bench::Case& c : cases) print_out("{}\n", full_name(c));
    return kOk;
  }
  if ((o.suite == "step" || o.suite == "all") && model_folder(o).empty())
    spdlog::warn("there is no {} here: name a checkpoint folder with --model to measure its step", kModel);
  bench::PeakProbe probe(*device);
  BenchRecord record{caps.device_name,
                     std::string(name(device->device_class())),
                     caps.driver_name + " " + caps.driver_info,
                     probe.best(),
                     {}};
  if (earlier && earlier->device() != record.device)
    spdlog::warn("--compare {} was measured on {}, this is {}", o.compare, earlier->device(), record.device);
  if (!common.json) print_head(record, earlier.has_value());
  const std::exception_ptr failed = measure_all(*device, probe, cases, o, common.json, earlier, record);
  if (common.json) {
    nlohmann::ordered_json j = to_json(record);
    if (earlier) compare_with(j, *earlier, record);
    print_out("{}\n", j.dump(1));
  }
  if (!o.csv.empty()) io::atomic_write(o.csv, to_csv(record));
  if (!o.plot.empty()) io::atomic_write(o.plot, roofline_svg(record));
  if (failed) std::rethrow_exception(failed);
  return verdict(record);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(
      app, "bench", "measure ops, blocks, denoising and training steps against the device's own peaks",
      "vkflux bench --suite ops --filter linear", common, [common, o] {
        return o->topic == "attention" ? bench_attention(*common, o->attention, o->measure)
                                       : run(*common, *o);
      });
  c->add_option("topic", o->topic,
                "kernels: the suites; attention: students against full attention, with break-even points")
      ->capture_default_str()
      ->check(CLI::IsMember({"kernels", "attention"}));
  c->add_option("--suite", o->suite, "what to measure")
      ->capture_default_str()
      ->check(CLI::IsMember({"ops", "blocks", "step", "train", "all"}));
  c->add_option("--filter", o->filter,
                "only rows whose name, shape and dtype, joined by blanks, contain this; several with commas");
  c->add_flag("--full", o->full, "also the large sizes on a CPU (slow)");
  c->add_flag("--list", o->list, "names of the rows, without measuring");
  c->add_option("--model", o->model, fmt::format("checkpoint folder for the suite of steps [{}]", kModel));
  c->add_option("--compare", o->compare, "file of an earlier --json: how much faster every row is now");
  c->add_option("--csv", o->csv, "write the rows to this file");
  c->add_option("--plot", o->plot, "write a roofline plot to this file (SVG)");
  c->add_option("--seconds", o->measure.seconds, "time for the repeats of a row")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  c->add_option("--repeats", o->measure.min_repeats, "least repeats of a row, however long they take")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  add_attention_options(*c, o->attention);
}

}  // namespace vkflux::cli
