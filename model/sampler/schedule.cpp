#include "model/sampler/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/config_fields.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSteps = 10000;
const char kOrigin[] = "scheduler_config.json";

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const Schedule& s) {
  for (const double v : {s.shift, s.base_mu, s.max_mu, s.base_tokens, s.max_tokens}) {
    if (!std::isfinite(v)) throw Error(code, "schedule: every number must be finite");
  }
  if (!(s.shift > 0)) throw Error(code, fmt::format("schedule: shift {} must be positive", s.shift));
  if (s.base_tokens == s.max_tokens) {
    throw Error(code, "schedule: base and max token counts must differ");
  }
}

}  // namespace

double time_shift(double mu, double sigma, double t) {
  return t > 0 ? std::exp(mu) / (std::exp(mu) + std::pow(1 / t - 1, sigma)) : 0;
}

void Schedule::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

double Schedule::mu(int64_t image_tokens) const {
  const double slope = (max_mu - base_mu) / (max_tokens - base_tokens);
  return slope * static_cast<double>(image_tokens) + (base_mu - slope * base_tokens);
}

std::vector<double> Schedule::levels(int64_t steps, int64_t image_tokens) const {
  if (steps < 1 || steps > kMaxSteps) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} steps: expected 1 to {}", steps, kMaxSteps));
  }
  check();
  const double m = dynamic ? mu(image_tokens) : std::log(shift);
  std::vector<double> out;
  for (int64_t k = 0; k < steps; ++k) {
    const double u = 1 - static_cast<double>(k) / static_cast<double>(steps);
    out.push_back(time_shift(m, 1, u));
  }
  out.push_back(0);
  return out;
}

Schedule Schedule::from_json(const io::Json& json) {
  const auto type = io::get_or<std::string>(json, "_class_name", "FlowMatchEulerDiscreteScheduler", kOrigin);
  if (type != "FlowMatchEulerDiscreteScheduler") {
    throw Error(ErrorCode::unsupported,
                fmt::format("{}: scheduler {}, known is FlowMatchEulerDiscreteScheduler", kOrigin, type));
  }
  for (const char* flag : {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas",
                           "stochastic_sampling"})
    io::refuse_other(json, flag, {false}, kOrigin);
  io::refuse_other(json, "num_train_timesteps", {1000}, kOrigin);
  io::refuse_other(json, "time_shift_type", {"exponential"}, kOrigin);
  io::refuse_other(json, "shift_terminal", {0, false}, kOrigin);
  Schedule s;
  s.dynamic = io::get_or<bool>(json, "use_dynamic_shifting", false, kOrigin);
  s.shift = io::get_or<double>(json, "shift", 1.0, kOrigin);
  s.base_mu = io::get_or<double>(json, "base_shift", s.base_mu, kOrigin);
  s.max_mu = io::get_or<double>(json, "max_shift", s.max_mu, kOrigin);
  s.base_tokens = io::get_or<double>(json, "base_image_seq_len", s.base_tokens, kOrigin);
  s.max_tokens = io::get_or<double>(json, "max_image_seq_len", s.max_tokens, kOrigin);
  const ErrorContext context(kOrigin);
  check_as(ErrorCode::format, s);
  return s;
}

io::Json Schedule::to_json() const {
  return {{"_class_name", "FlowMatchEulerDiscreteScheduler"},
          {"num_train_timesteps", 1000},
          {"use_dynamic_shifting", dynamic},
          {"shift", shift},
          {"base_shift", base_mu},
          {"max_shift", max_mu},
          {"base_image_seq_len", static_cast<int64_t>(base_tokens)},
          {"max_image_seq_len", static_cast<int64_t>(max_tokens)}};
}

void check_levels(const std::vector<double>& levels) {
  bool ok = levels.size() >= 2;
  for (size_t i = 0; i < levels.size(); ++i) {
    ok = ok && levels[i] >= 0 && levels[i] <= 1 && (i == 0 || levels[i] < levels[i - 1]);
  }
  if (!ok) {
    throw Error(ErrorCode::invalid_argument, "noise levels must fall strictly, within 1 and 0, two or more");
  }
}

int64_t image_to_image_start(int64_t steps, double strength) {
  if (!(strength > 0) || strength > 1) {
    throw Error(ErrorCode::invalid_argument, fmt::format("strength {} must be in (0, 1]", strength));
  }
  const double n = static_cast<double>(steps);
  return static_cast<int64_t>(std::floor(std::max(n - std::min(n * strength, n), 0.0)));
}

}  // namespace vkflux
