// Latents in a file, so that two programs can be compared, and a picture decoded later or elsewhere.
//
// A safetensors file with
//   latents  f32 [B, C, h, w]  the state of the run, as the transformer sees it (not divided by the
//                              autoencoder's scaling_factor): the picture where all steps are done
//   noise    f32 [B, C, h, w]  what the run began with
//   sigmas   f32 [n + 1]       its noise levels
// and its settings as metadata: "width" and "height" in pixels, "step" of "steps", and for people the
// prompts, seed, sampler and so on. Read are also files of other programs with one of these tensors, or one
// alone under any name, packed as diffusers' pipelines have them ([B, tokens, C p p], or without B) or not.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/backbone.h"

namespace vkflux {

struct LatentsFile {
  Tensor latents, noise;  // [B, C, h, w]; one may be undefined
  std::vector<double> levels;
  std::map<std::string, std::string> settings;

  /// Atomic.
  void save(const std::string& path) const;
};

/// Which tensor of a file is wanted where it has both.
enum class LatentKind { latents, noise };

/// `geometry` and `pixels_per_cell` are those of the model; width and height in pixels say how tokens lie
/// where the file doesn't, 0: unknown. Error format names the file and its tensors where none fits, and
/// values that aren't finite.
LatentsFile read_latents(Device& device, const std::string& path, LatentKind wanted,
                         const LatentGeometry& geometry, int64_t pixels_per_cell, int64_t width = 0,
                         int64_t height = 0);

}  // namespace vkflux
