#include "model/sampler/spacing.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr double kRho = 7;            // of Karras et al.
constexpr double kBetaShape = 0.6;    // both parameters of the beta distribution
constexpr double kThreshold = 0.025;  // noise that linear_quadratic takes away in its linear half
constexpr double kNothing = 1e-5;     // a level that ComfyUI takes for the 0 at the end

constexpr std::array<SpacingRow, 13> kRows{{
    {Spacing::model, "model", "what the model's scheduler_config.json says: the default"},
    {Spacing::karras, "karras", "dense at low noise (diffusers' use_karras_sigmas)"},
    {Spacing::exponential, "exponential", "even in the logarithm (diffusers' use_exponential_sigmas)"},
    {Spacing::beta, "beta", "dense at both ends (diffusers' use_beta_sigmas)"},
    {Spacing::simple, "simple", "evenly from ComfyUI's table: nearly the model's own"},
    {Spacing::normal, "normal", "ComfyUI's: even times down to the table's least level"},
    {Spacing::sgm_uniform, "sgm_uniform", "ComfyUI's: the same with the last time left out"},
    {Spacing::ddim_uniform, "ddim_uniform", "ComfyUI's: a whole stride through its table"},
    {Spacing::comfy_karras, "comfy_karras", "ComfyUI's karras, down to its table's least level"},
    {Spacing::comfy_exponential, "comfy_exponential", "ComfyUI's exponential"},
    {Spacing::comfy_beta, "comfy_beta", "ComfyUI's beta"},
    {Spacing::kl_optimal, "kl_optimal", "ComfyUI's: even in the arc tangent"},
    {Spacing::linear_quadratic, "linear_quadratic", "ComfyUI's: many small steps first"},
}};

double even(int64_t i, int64_t n) {
  return n > 1 ? static_cast<double>(i) / static_cast<double>(n - 1) : 0;
}

/// Lentz's continued fraction of the incomplete beta function.
double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const auto off_zero = [](double v) { return std::abs(v) < kTiny ? kTiny : v; };
  double c = 1, d = 1 / off_zero(1 - (a + b) * x / (a + 1)), f = d;
  for (int m = 1; m < 500; ++m) {
    const double even_term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / off_zero(1 + even_term * d);
    c = off_zero(1 + even_term / c);
    f *= d * c;
    const double odd_term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / off_zero(1 + odd_term * d);
    c = off_zero(1 + odd_term / c);
    f *= d * c;
    if (std::abs(d * c - 1) < 1e-16) break;
  }
  return f;
}

/// I_x(a, b).
double incomplete_beta(double x, double a, double b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                   : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

}  // namespace

std::span<const SpacingRow> spacings() {
  return kRows;
}

Spacing parse_spacing(const std::string& text) {
  std::string known;
  for (const SpacingRow& row : kRows) {
    if (text == row.name) return row.spacing;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", row.name);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("schedule \"{}\": known are {}", text, known));
}

const char* name(Spacing spacing) {
  return kRows[static_cast<size_t>(spacing)].name;
}

bool between_ends(Spacing spacing) {
  return spacing == Spacing::karras || spacing == Spacing::exponential || spacing == Spacing::beta;
}

double beta_quantile(double p, double a, double b) {
  if (!(p > 0)) return 0;
  if (p >= 1) return 1;
  double low = 0, high = 1;
  // Near the ends the answer may lie far below any fixed step, so the search halves in the exponent first.
  for (int i = 0; i < 1100 && low < high; ++i) {
    const double mid =
        low > 0 && high / low > 4 ? std::sqrt(low * high) : (low > 0 ? (low + high) / 2 : high / 16);
    if (mid <= low || mid >= high) break;
    (incomplete_beta(mid, a, b) < p ? low : high) = mid;
    if (low == 0 && high < 1e-300) break;
  }
  return (low + high) / 2;
}

std::vector<double> spread(Spacing spacing, double first, double last, int64_t n) {
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) {
    const double at = even(i, n);
    if (spacing == Spacing::karras) {
      const double from = std::pow(first, 1 / kRho), to = std::pow(last, 1 / kRho);
      out.push_back(std::pow(from + at * (to - from), kRho));
    } else if (spacing == Spacing::exponential) {
      out.push_back(std::exp(std::log(first) + at * (std::log(last) - std::log(first))));
    } else {
      out.push_back(last + beta_quantile(1 - at, kBetaShape, kBetaShape) * (first - last));
    }
  }
  return out;
}

namespace {

std::vector<double> linear_quadratic(int64_t n) {
  if (n == 1) return {1};
  const int64_t half = n / 2;
  const auto linear = static_cast<double>(half), steps = static_cast<double>(n), rest = steps - linear;
  const double over = linear - kThreshold * steps, square = over / (linear * rest * rest),
               slope = kThreshold / linear - 2 * over / (rest * rest), base = square * linear * linear;
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) {
    const auto x = static_cast<double>(i);
    out.push_back(1 - (i < half ? x * kThreshold / linear : square * x * x + slope * x + base));
  }
  return out;
}

/// Without the 0 at the end.
std::vector<double> normal_levels(const LevelTable& t, int64_t n, bool& ends_in_zero) {
  ends_in_zero = t.level(t.least()) < kNothing;
  if (ends_in_zero) ++n;
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(t.level(t.most() + even(i, n) * (t.least() - t.most())));
  return out;
}

std::vector<double> ddim_levels(const LevelTable& t, int64_t n, bool& ends_in_zero) {
  ends_in_zero = t.at(std::min<int64_t>(1, t.size - 1)) < kNothing;
  if (ends_in_zero) ++n;
  std::vector<double> out;
  for (int64_t i = 1; i < t.size; i += std::max<int64_t>(t.size / n, 1)) out.push_back(t.at(i));
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<double> beta_levels(const LevelTable& t, int64_t n) {
  std::vector<double> out;
  double before = -1;
  for (int64_t i = 0; i < n; ++i) {
    const double time = 1 - static_cast<double>(i) / static_cast<double>(n);
    const double place =
        std::nearbyint(beta_quantile(time, kBetaShape, kBetaShape) * static_cast<double>(t.size - 1));
    if (place != before) out.push_back(t.at(static_cast<int64_t>(place)));
    before = place;
  }
  return out;
}

}  // namespace

std::vector<double> picked(Spacing spacing, const LevelTable& t, int64_t n) {
  std::vector<double> out;
  bool ends_in_zero = false;
  switch (spacing) {
    case Spacing::simple:
      for (int64_t i = 0; i < n; ++i) {
        const double stride = static_cast<double>(t.size) / static_cast<double>(n);
        out.push_back(t.at(t.size - 1 - static_cast<int64_t>(static_cast<double>(i) * stride)));
      }
      break;
    case Spacing::normal:
      out = normal_levels(t, n, ends_in_zero);
      break;
    case Spacing::sgm_uniform:
      for (int64_t i = 0; i < n; ++i) {
        const double at = static_cast<double>(i) / static_cast<double>(n);
        out.push_back(t.level(t.most() + at * (t.least() - t.most())));
      }
      break;
    case Spacing::ddim_uniform:
      out = ddim_levels(t, n, ends_in_zero);
      break;
    case Spacing::comfy_karras:
      out = spread(Spacing::karras, t.most(), t.least(), n);
      break;
    case Spacing::comfy_exponential:
      out = spread(Spacing::exponential, t.most(), t.least(), n);
      break;
    case Spacing::comfy_beta:
      out = beta_levels(t, n);
      break;
    case Spacing::kl_optimal:
      for (int64_t i = 0; i < n; ++i) {
        const double at = even(i, n);
        out.push_back(std::tan(at * std::atan(t.least()) + (1 - at) * std::atan(t.most())));
      }
      break;
    case Spacing::linear_quadratic:
      out = linear_quadratic(n);
      for (double& x : out) x *= t.most();
      break;
    default:
      throw Error(ErrorCode::internal, fmt::format("{} takes no table", name(spacing)));
  }
  if (ends_in_zero) {
    out.back() = 0;
  } else {
    out.push_back(0);
  }
  return out;
}

}  // namespace vkflux
