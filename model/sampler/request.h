// From what somebody asks for to the settings of a run: the one place where a model's defaults, sizes and
// schedule meet a request.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/sampler/run.h"
#include "model/sampler/schedule.h"

namespace vkflux {

/// What a model's files recommend, else the published models' values.
struct SamplingDefaults {
  int64_t steps = 28, width = 1024, height = 1024;
  float guidance = 3.5f, cfg = 1;
  double strength = 0.6;     // of image to image and inpainting
  int64_t txt_tokens = 512;  // of the text encoders
};

/// What a transformer reads of pictures besides noise, behind the channels of each token (condition.h).
enum class ExtraChannels {
  none,
  control,  // the latent of a control picture (edges, depth)
  fill      // the latent of the picture without what is to be repainted, and the mask in full resolution
};

/// How reference pictures are prepared, and how their tokens are told from the drawn picture's.
enum class ReferenceRule {
  trained_sizes,  // in the nearest of Kontext's sizes; side by side at index 1
  capped_area  // FLUX.2: shrunk where over 1024 * 1024 pixels and cut to whole tokens; at index 10, 20, ...
};

/// What sampling needs to know of a model besides its weights.
struct ModelInfo {
  BackboneLayout layout;
  int64_t pixels_per_cell = 8;  // side of the square that a cell of the latent stands for
  Schedule schedule;
  SamplingDefaults defaults;
  SolverOptions solver = {};
  ExtraChannels extra = ExtraChannels::none;
  bool references = false;  // it was made to read reference pictures
  ReferenceRule reference_rule = ReferenceRule::trained_sizes;
  std::string pipeline = {};  // the class that its files name; empty: none

  /// Pixels per token side: width and height are multiples of it.
  int64_t pixels_per_token() const { return pixels_per_cell * layout.geometry.patch; }
};

struct SamplingRequest {
  int64_t width = 0, height = 0;       // pixels, 0: the default; rounded down to whole tokens
  int64_t steps = 0;                   // 0: the default
  std::optional<float> guidance, cfg;  // absent: the default
  std::vector<double> levels;          // noise levels by hand, instead of steps and the model's schedule
  std::string sampler, schedule;       // names of solver.h and spacing.h; empty: the model's
  std::optional<double> shift;         // of the levels: a fixed one,
  std::optional<double> base_shift, max_shift;  // or the ends of one that grows with the size
};

/// The settings of a run of one size.
struct SamplingSetup {
  SamplingOptions options;
  Shape latent;                    // [channels, h, w]
  std::vector<std::string> notes;  // what was asked for and the model can't do
};
/// Error invalid_argument for what can't be: sides below a token or over 16384, guidance that isn't finite,
/// unknown samplers and schedules, levels that don't fall.
SamplingSetup sampling_setup(const ModelInfo& model, const SamplingRequest& request);

}  // namespace vkflux
