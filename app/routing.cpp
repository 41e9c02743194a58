#include "app/routing.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "model/routing/policy.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kShown = 12;

void check(const RoutingArgs& a) {
  const auto wrong = [](const std::string& message) { throw Error(ErrorCode::invalid_argument, message); };
  if (a.ttr.empty()) wrong("routing needs the students' file: give --ttr FILE");
  if (!a.controller.empty() && !a.layers.empty())
    wrong("--layers fixes the layers that a --controller would choose: give only one of them");
  if (!a.layers.empty() && a.quality_speed)
    wrong("--layers fixes the layers, so --quality-speed has nothing to decide: give only one of them");
  if (a.quality_speed && !(*a.quality_speed >= 0 && *a.quality_speed <= 1))
    wrong(fmt::format("--quality-speed {}: 0 (full attention) to 1 (fastest) is expected", *a.quality_speed));
  const PolicyKind policy = parse_policy(a.policy);
  if (a.controller.empty() && policy != PolicyKind::ranked)
    wrong(fmt::format("--policy {} says how a controller decides: give --controller, or leave it out",
                      a.policy));
  if (policy != PolicyKind::stochastic && a.temperature != 1)
    wrong("--policy-temperature is of the stochastic policy: add --policy stochastic, or leave it out");
}

std::vector<int> parse_layers(const std::string& text) {
  std::vector<int> out;
  const char *at = text.data(), *end = at + text.size();
  while (at < end) {
    int n = 0;
    const auto [next, error] = std::from_chars(at, end, n);
    if (error != std::errc() || (next < end && *next != ',')) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("--layers {}: numbers of layers are expected, 0,2,3 say", text));
    }
    out.push_back(n);
    at = next + (next < end ? 1 : 0);
  }
  return out;
}

}  // namespace

RouterSource::RouterSource(Pipeline& pipeline, RoutingArgs args)
    : pipeline_(pipeline), args_(std::move(args)) {
  check(args_);
  if (!std::isfinite(args_.temperature) || args_.temperature <= 0) {
    spdlog::warn("--policy-temperature {} can't be: 1 is used", args_.temperature);
    args_.temperature = 1;
  }
  pipeline_.install_students(args_.ttr);
  if (!args_.controller.empty())
    controller_ = load_controller(pipeline_.device(), args_.controller, pipeline_.students()->model);
  if (pipeline_.students()->serving().empty())
    spdlog::warn("{}: no student is ready, so every layer keeps full attention", args_.ttr);
}

double RouterSource::default_quality_speed() const {
  return args_.quality_speed.value_or(controller_ ? 0.5 : 1.0);
}

std::shared_ptr<Router> RouterSource::router(double quality_speed, double temperature) const {
  const Students& students = *pipeline_.students();
  const size_t layers = pipeline_.info().layout.replaceable().size();
  if (!args_.layers.empty())
    return std::make_shared<FixedRouter>(layer_flags(parse_layers(args_.layers), layers));
  if (controller_) {
    const PolicyOptions policy = policy_at(parse_policy(args_.policy), quality_speed, temperature);
    // The ranked policy's share is one of calls that can be served. The others decide about every student,
    // as the reference's do, and the run says why it refuses those that aren't ready.
    const std::vector<int> eligible =
        policy.kind == PolicyKind::ranked ? students.serving() : students.distilled();
    return std::make_shared<ControllerRouter>(controller_, policy, layer_flags(eligible, layers));
  }
  if (quality_speed != 0 && quality_speed != 1) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("--quality-speed {} needs a --controller, which says what to give up first; without "
                    "one it is 0 (no student) or 1 (every ready one), or --layers 0,2,3 names them",
                    quality_speed));
  }
  return std::make_shared<FixedRouter>(
      layer_flags(quality_speed == 1 ? students.serving() : std::vector<int>{}, layers));
}

std::string short_list(const std::vector<int>& numbers) {
  std::string out;
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers.size() > kShown && i == kShown / 2) {
      out += " ...";
      i = numbers.size() - kShown / 2;
    }
    out += fmt::format("{}{}", out.empty() ? "" : " ", numbers[i]);
  }
  return out;
}

std::string step_summary(const StepReport& r, int64_t steps, int64_t layers) {
  std::string out = fmt::format("step {}/{}  sigma {:.4f}  threshold {:.3f}  student {} ({} of {})",
                                r.index + 1, steps, r.sigma, r.threshold,
                                r.student.empty() ? "none" : short_list(r.student), r.student.size(), layers);
  if (!r.refused.empty()) out += "  refused";
  for (size_t i = 0; i < r.refused.size(); ++i) {
    if (r.refused.size() > kShown && i == kShown / 2) {
      out += " ...";
      i = r.refused.size() - kShown / 2;
    }
    out += fmt::format(" {} ({})", r.refused[i].layer, r.refused[i].reason);
  }
  return out + fmt::format("  {:.1f} ms", r.ms);
}

nlohmann::ordered_json step_json(const StepReport& r) {
  nlohmann::ordered_json j{{"index", r.index},
                           {"sigma", r.sigma},
                           {"ms", r.ms},
                           {"flops", r.flops},
                           {"attention_flops", r.attention_flops},
                           {"full_attention_flops", r.full_attention_flops}};
  if (!r.routed) return j;
  j["threshold"] = r.threshold;
  j["planned"] = r.planned;
  j["student"] = r.student;
  j["refused"] = nlohmann::ordered_json::array();
  for (const RefusedLayer& l : r.refused) j["refused"].push_back({{"layer", l.layer}, {"reason", l.reason}});
  return j;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

RunSummary summarise(const std::vector<StepReport>& reports, int64_t layers) {
  RunSummary s;
  std::vector<double> ms;
  size_t students = 0;
  for (const StepReport& r : reports) {
    students += r.student.size();
    s.refused += static_cast<int64_t>(r.refused.size());
    s.flops += r.flops;
    s.attention_flops += r.attention_flops;
    s.full_attention_flops += r.full_attention_flops;
    ms.push_back(r.ms);
  }
  s.median_step_ms = median(ms);
  const double pairs = static_cast<double>(reports.size()) * static_cast<double>(layers);
  if (pairs > 0) s.student_share = static_cast<double>(students) / pairs;
  return s;
}

}  // namespace vkflux
