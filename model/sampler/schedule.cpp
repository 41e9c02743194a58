#include "model/sampler/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSteps = 10000;
constexpr double kTimesPerSecond = 1000;  // of the transformer's time embedding
// Lengths of ComfyUI's tables of levels: of models that shift with the size, and of the others.
constexpr int64_t kShiftedTable = 10000, kPlainTable = 1000;

// Of an image of this many tokens drawn in so many steps. FLUX.2's authors measured it.
double empirical_mu(double tokens, double steps) {
  constexpr double kMostTokens = 4300, kFew = 10, kMany = 200;
  const double many = 0.00016927 * tokens + 0.45666666;
  if (tokens > kMostTokens) return many;
  const double few = 8.73809524e-05 * tokens + 1.89833333, slope = (many - few) / (kMany - kFew);
  return slope * steps + (many - kMany * slope);
}

}  // namespace

double time_shift(double mu, double sigma, double t) {
  return t > 0 ? std::exp(mu) / (std::exp(mu) + std::pow(1 / t - 1, sigma)) : 0;
}

void Schedule::check() const {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::invalid_argument, "schedule: " + what);
  };
  for (const double v : {shift, base_mu, max_mu, base_tokens, max_tokens, terminal, spacing_first,
                         spacing_last, final_level}) {
    if (!std::isfinite(v)) refuse("every number must be finite");
  }
  if (!(shift > 0)) refuse(fmt::format("shift {} must be positive", shift));
  if (base_tokens == max_tokens) refuse("base and max token counts must differ");
  if (terminal < 0 || terminal >= 1) refuse(fmt::format("shift_terminal {}: expected 0 to 1", terminal));
  if (spacing_first < 0 || spacing_last < 0) refuse("sigma_max and sigma_min must be positive");
  if (train_steps < 1) refuse(fmt::format("num_train_timesteps {}: expected 1 or more", train_steps));
}

double Schedule::mu(int64_t image_tokens, int64_t steps) const {
  if (empirical) return empirical_mu(static_cast<double>(image_tokens), static_cast<double>(steps));
  const double slope = (max_mu - base_mu) / (max_tokens - base_tokens);
  return slope * static_cast<double>(image_tokens) + (base_mu - slope * base_tokens);
}

double Schedule::shifted(double t, double mu_of) const {
  const double m = dynamic ? mu_of : std::log(shift);
  if (!dynamic || !linear_shift) return time_shift(m, 1, t);
  return t > 0 ? m / (m + (1 / t - 1)) : 0;
}

std::vector<double> Schedule::own_levels(int64_t steps, int64_t image_tokens) const {
  const auto n = static_cast<double>(steps), trained = static_cast<double>(train_steps);
  const double m = mu(image_tokens, steps);
  std::vector<double> out;
  if (grid == TimeGrid::solvers) {
    // In the order of operations of the original: what is made whole later mustn't differ by a rounding.
    const double s = dynamic ? std::exp(m) : shift, stride = (1 / trained - 1) / n;
    for (int64_t k = steps; k > 0; --k) {
      const double alpha = k == steps ? 1 / trained : static_cast<double>(k) * stride + 1, u = 1 - alpha;
      out.push_back(s * u / (1 + (s - 1) * u));
    }
    return out;
  }
  const double end = 1 / trained, least = dynamic ? end : shift * end / (1 + (shift - 1) * end);
  for (int64_t k = 0; k < steps; ++k) {
    double u = 1 - static_cast<double>(k) / n;
    if (grid == TimeGrid::table) u = steps > 1 ? 1 + static_cast<double>(k) / (n - 1) * (least - 1) : 1;
    out.push_back(shifted(u, m));
  }
  if (terminal > 0) {
    const double scale = (1 - out.back()) / (1 - terminal);
    for (double& x : out) x = 1 - (1 - x) / scale;
  }
  return out;
}

std::vector<double> Schedule::levels(int64_t steps, int64_t image_tokens) const {
  if (steps < 1 || steps > kMaxSteps) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} steps: expected 1 to {}", steps, kMaxSteps));
  }
  check();
  std::vector<double> out;
  if (spacing == Spacing::model || between_ends(spacing)) {
    out = own_levels(steps, image_tokens);
    if (between_ends(spacing)) {
      out = spread(spacing, spacing_first > 0 ? spacing_first : out.front(),
                   spacing_last > 0 ? spacing_last : out.back(), steps);
    }
    if (inverted) {
      for (double& x : out) x = 1 - x;
    }
    out.push_back(final_repeats ? out.back() : inverted ? 1 : final_level);
  } else {
    out = picked(spacing,
                 {[&](double t) { return shifted(t, mu(image_tokens, steps)); },
                  dynamic ? kShiftedTable : kPlainTable},
                 steps);
  }
  for (const double x : out) {
    if (std::isfinite(x)) continue;
    throw Error(ErrorCode::format,
                fmt::format("the schedule has no finite levels for {} step{} (shift_terminal {:g}, mu {:g}): "
                            "take more steps, or another --schedule",
                            steps, steps == 1 ? "" : "s", terminal, mu(image_tokens, steps)));
  }
  return out;
}

std::vector<double> Schedule::times(const std::vector<double>& levels) const {
  if (grid != TimeGrid::solvers || spacing != Spacing::model) return exact_times(levels);
  std::vector<double> out;
  for (const double level : levels)
    out.push_back(std::trunc(level * static_cast<double>(train_steps)) / kTimesPerSecond);
  return out;
}

std::vector<double> Schedule::exact_times(const std::vector<double>& levels) const {
  if (train_steps == static_cast<int64_t>(kTimesPerSecond)) return {};
  std::vector<double> out;
  for (const double level : levels) out.push_back(level * static_cast<double>(train_steps) / kTimesPerSecond);
  return out;
}

io::Json Schedule::to_json() const {
  io::Json out{{"_class_name", "FlowMatchEulerDiscreteScheduler"},
               {"num_train_timesteps", train_steps},
               {"use_dynamic_shifting", dynamic},
               {"shift", shift},
               {"base_shift", base_mu},
               {"max_shift", max_mu},
               {"base_image_seq_len", static_cast<int64_t>(base_tokens)},
               {"max_image_seq_len", static_cast<int64_t>(max_tokens)}};
  if (linear_shift) out["time_shift_type"] = "linear";
  if (terminal > 0) out["shift_terminal"] = terminal;
  if (inverted) out["invert_sigmas"] = true;
  if (between_ends(spacing)) out[fmt::format("use_{}_sigmas", name(spacing))] = true;
  return out;
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
