#include "app/cli/profile.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <vector>

#include "model/io/file.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> parts_of(const std::string& scope) {
  std::vector<std::string> out;
  for (size_t at = 0; at < scope.size();) {
    const size_t end = std::min(scope.find('/', at), scope.size());
    out.push_back(scope.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

Json event(const std::string& name, const char* category, double begin_ms, double end_ms) {
  return {{"name", name},
          {"cat", category},
          {"ph", "X"},
          {"ts", begin_ms * 1e3},
          {"dur", (end_ms - begin_ms) * 1e3},
          {"pid", 1},
          {"tid", 1}};
}

/// The open parts of the model, outermost first, as a trace is walked in order of time.
class Parts {
 public:
  explicit Parts(Json& events) : events_(events) {}
  void move_to(const std::vector<std::string>& parts, double begin_ms) {
    size_t same = 0;
    while (same < open_.size() && same < parts.size() && open_[same].name == parts[same]) ++same;
    close(same);
    for (size_t i = same; i < parts.size(); ++i) open_.push_back({parts[i], begin_ms});
  }
  void reach(double end_ms) { end_ms_ = end_ms; }
  void close(size_t keep) {
    while (open_.size() > keep) {
      events_.push_back(event(open_.back().name, "part", open_.back().begin_ms, end_ms_));
      open_.pop_back();
    }
  }

 private:
  struct Part {
    std::string name;
    double begin_ms;
  };
  Json& events_;
  std::vector<Part> open_;
  double end_ms_ = 0;
};

}  // namespace

void add_profile_options(CLI::App& command, ProfileArgs& args) {
  command.add_flag(
      "--profile", args.table,
      "measure every kernel by timestamps of the device and print two tables at the end, by kernel "
      "and by part of the model: calls, ms, share of the time, GFLOP/s and GB/s (counted work over "
      "measured time). Recorded passes run eagerly meanwhile, so that each kernel is seen");
  command
      .add_option(
          "--profile-trace", args.trace,
          "also write every single call with its begin and duration to FILE as JSON for a trace viewer "
          "(chrome://tracing, ui.perfetto.dev)")
      ->type_name("FILE");
}

Json profile_trace(const Device& device, const Profiler& profiler) {
  Json events = Json::array();
  Parts parts(events);
  const std::vector<ProfileSample>& samples = profiler.samples();
  const double zero = samples.empty() ? 0 : samples.front().begin_ms;
  for (const ProfileSample& s : samples) {
    const double begin = s.begin_ms - zero, end = s.end_ms - zero;
    parts.move_to(parts_of(profiler.scope_name(s.scope)), begin);
    parts.reach(end);
    Json e = event(std::string(s.kernel), "kernel", begin, end);
    const double ns = std::max(s.end_ms - s.begin_ms, 1e-9) * 1e6;
    e["args"] = {{"gflops", s.flops / ns}, {"gbs", s.bytes / ns}, {"flops", s.flops}, {"bytes", s.bytes}};
    events.push_back(std::move(e));
  }
  parts.close(0);
  return {{"displayTimeUnit", "ms"},
          {"otherData",
           {{"device", device.caps().device_name},
            {"driver", device.caps().driver_name + " " + device.caps().driver_info},
            {"timestamp_period_ns", device.caps().timestamp_period},
            {"dropped", profiler.dropped()}}},
          {"traceEvents", std::move(events)}};
}

ProfileSession::ProfileSession(Device& device, const ProfileArgs& args) : device_(device), args_(args) {
  if (!args_.table && args_.trace.empty()) return;
  if (device.caps().timestamp_period <= 0) {
    throw Error(ErrorCode::unsupported,
                fmt::format("--profile: {} has no timestamps", device.caps().device_name));
  }
  device_.profiler().clear();
  device_.profiler().keep_samples(!args_.trace.empty());
  device_.profiler().enable(true);
}

void ProfileSession::finish() {
  device_.stream().sync();
  Profiler& profiler = device_.profiler();
  profiler.enable(false);
  if (args_.table) write_note("\n" + profiler.report());
  if (args_.trace.empty()) return;
  if (profiler.dropped())
    spdlog::warn("the trace ends after {} calls: {} more were not kept", profiler.samples().size(),
                 profiler.dropped());
  io::atomic_write(args_.trace, profile_trace(device_, profiler).dump() + "\n");
  print_note("{}\n", args_.trace);
}

ProfileSession::~ProfileSession() {
  if (!args_.table && args_.trace.empty()) return;
  try {
    finish();
  } catch (const std::exception& e) {
    spdlog::warn("no profile: {}", e.what());
  }
}

}  // namespace vkflux::cli
