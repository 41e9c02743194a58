// Noise levels of a run: steps + 1 values from 1 (noise) down to 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/io/json.h"

namespace vkflux {

/// e^mu / (e^mu + (1/t - 1)^sigma), 0 at t = 0: moves noise levels towards noise for mu > 0.
double time_shift(double mu, double sigma, double t);

struct Schedule {
  /// With dynamic shifting the shift's exponent mu grows linearly with the number of image tokens, unclamped:
  /// base_mu at base_tokens, max_mu at max_tokens. Without it every level goes through shift s/(1+(s-1)u).
  bool dynamic = true;
  double shift = 1;
  double base_mu = 0.5, max_mu = 1.15;
  double base_tokens = 256, max_tokens = 4096;

  void check() const;
  double mu(int64_t image_tokens) const;
  /// Error invalid_argument unless 1 <= steps <= 10000.
  std::vector<double> levels(int64_t steps, int64_t image_tokens) const;

  static Schedule flux1_dev() { return {}; }
  static Schedule flux1_schnell() { return {false}; }
  /// From diffusers' scheduler/scheduler_config.json (FlowMatchEulerDiscreteScheduler).
  static Schedule from_json(const io::Json& json);
  io::Json to_json() const;
};

/// Checks levels given by hand: finite, within [0, 1], strictly falling, at least two.
void check_levels(const std::vector<double>& levels);

/// The first step of an image-to-image run: levels[start] is the noise level that strength (0, 1] stands for;
/// strength 1 is 0, that is text to image.
int64_t image_to_image_start(int64_t steps, double strength);

}  // namespace vkflux
