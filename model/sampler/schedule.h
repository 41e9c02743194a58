// Noise levels of a run: steps + 1 values, as a rule from 1 (noise) down to 0.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/io/json.h"
#include "model/sampler/spacing.h"

namespace vkflux {

/// e^mu / (e^mu + (1/t - 1)^sigma), 0 at t = 0: moves noise levels towards noise for mu > 0.
double time_shift(double mu, double sigma, double t);

/// The times that a schedule shifts.
enum class TimeGrid {
  steps,    // 1 - k/n: flow matching's own, and "trailing" spacing
  table,    // evenly between the ends of diffusers' table of num_train_timesteps shifted levels
  solvers,  // of diffusers' DPM-Solver and UniPC with use_flow_sigmas; the transformer gets whole times
};

struct Schedule {
  /// With dynamic shifting the shift's exponent mu depends on the number of image tokens; without it every
  /// level goes through shift s/(1+(s-1)u).
  bool dynamic = true;
  /// Where mu comes from: a line through base_mu at base_tokens and max_mu at max_tokens, unclamped; or
  /// FLUX.2's two measured lines, for 10 and for 200 steps, with the steps of a run between or beyond them
  /// (above 4300 tokens that for 200 steps alone).
  bool empirical = false;
  double shift = 1;
  double base_mu = 0.5, max_mu = 1.15;
  double base_tokens = 256, max_tokens = 4096;
  bool linear_shift = false;  // dynamic: mu takes the place of e^mu ("time_shift_type": "linear")
  double terminal = 0;        // the last level before the end, by stretching all; 0: as it comes
  bool inverted = false;      // 1 minus every level, from 0 up to 1
  Spacing spacing = Spacing::model;
  double spacing_first = 0,
         spacing_last = 0;  // ends of a spacing between two; 0: those of the shifted levels
  TimeGrid grid = TimeGrid::steps;
  int64_t train_steps = 1000;  // num_train_timesteps: the transformer gets level * train_steps / 1000
  double final_level = 0;      // the level of the end
  bool final_repeats = false;  // the end is the last level once more

  /// Error invalid_argument for numbers that can't be.
  void check() const;
  /// steps: of the run; a line doesn't depend on them.
  double mu(int64_t image_tokens, int64_t steps) const;
  /// Error invalid_argument unless 1 <= steps <= 10000, format where a level isn't finite.
  std::vector<double> levels(int64_t steps, int64_t image_tokens) const;
  /// What the transformer is told in place of the levels of levels(); empty: the levels themselves.
  std::vector<double> times(const std::vector<double>& levels) const;
  /// The same for levels from elsewhere: never rounded.
  std::vector<double> exact_times(const std::vector<double>& levels) const;

  static Schedule flux1_dev() { return {}; }
  static Schedule flux1_schnell() { return {false}; }
  static Schedule flux2() { return {true, true}; }
  /// As FlowMatchEulerDiscreteScheduler's scheduler_config.json; see SchedulerConfig (scheduler_config.h).
  /// The file doesn't say where mu comes from: the pipeline does.
  io::Json to_json() const;

 private:
  /// mu_of: mu() of the run.
  double shifted(double t, double mu_of) const;
  std::vector<double> own_levels(int64_t steps, int64_t image_tokens) const;
};

/// Checks levels given by hand: finite, within [0, 1], strictly falling, at least two.
void check_levels(const std::vector<double>& levels);

/// The first step of an image-to-image run: levels[start] is the noise level that strength (0, 1] stands for;
/// strength 1 is 0, that is text to image.
int64_t image_to_image_start(int64_t steps, double strength);

}  // namespace vkflux
