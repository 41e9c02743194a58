// How noise levels are spread between the first and the last: rows by the names that people know from other
// programs.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace vkflux {

enum class Spacing {
  model,  // evenly, then shifted: what FLUX models are trained for
  // diffusers' use_karras_sigmas and so on: between the first and the last shifted level
  karras,
  exponential,
  beta,
  // ComfyUI's, from a table of shifted levels
  simple,
  normal,
  sgm_uniform,
  ddim_uniform,
  comfy_karras,
  comfy_exponential,
  comfy_beta,
  kl_optimal,
  linear_quadratic
};

struct SpacingRow {
  Spacing spacing;
  const char *name, *title;
};
/// All of them, in the order of their listing.
std::span<const SpacingRow> spacings();
/// Error invalid_argument lists the names.
Spacing parse_spacing(const std::string& text);
const char* name(Spacing spacing);
/// Needs a first and a last level only, as diffusers' conversions do.
bool between_ends(Spacing spacing);

/// n levels from `first` down to `last` of one of the first kind; one level is `first`.
std::vector<double> spread(Spacing spacing, double first, double last, int64_t n);

/// The levels that ComfyUI's schedulers pick from: level(i / size) for i = 1 to size.
struct LevelTable {
  std::function<double(double)> level;  // rising, of a time in (0, 1]
  int64_t size = 1000;

  double at(int64_t i) const { return level(static_cast<double>(i + 1) / static_cast<double>(size)); }
  double least() const { return at(0); }
  double most() const { return at(size - 1); }
};
/// The levels of a run of n steps, with the 0 at the end: n + 1 of them, or what ComfyUI makes of n (beta
/// drops doubles, ddim_uniform takes what its whole stride meets).
std::vector<double> picked(Spacing spacing, const LevelTable& table, int64_t n);

/// The x at which the regularised incomplete beta function I_x(a, b) is p; 0 <= p <= 1, a, b > 0.
double beta_quantile(double p, double a, double b);

}  // namespace vkflux
