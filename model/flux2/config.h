// Shape of a FLUX.2 transformer.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/tensor.h"
#include "model/io/json.h"

namespace vkflux {

/// The defaults are those of FLUX.2 [dev].
struct Flux2Config {
  int64_t channels = 128;  // of a token, in and out
  int64_t context_in_dim = 15360;
  int64_t hidden = 6144, mlp_hidden = 18432;
  int64_t heads = 48, head_dim = 128;
  int64_t depth = 8, depth_single = 48;
  int64_t time_features = 256;  // sinusoids of the noise level and of guidance
  /// Channels of a head that turn with a token's index, row, column and place in the text. Fewer than four:
  /// the last ones have none.
  std::vector<int64_t> axes_dim = {32, 32, 32, 32};
  double theta = 2000;
  double eps = 1e-6;  // of all norms
  bool guidance = true;

  /// Error invalid_argument, with the reason, for sizes that can't be.
  void check() const;
};

/// RoPE axes of a head size when nothing states them: four as equal as even numbers can be, the first ones
/// the larger. 128 -> 32, 32, 32, 32.
std::vector<int64_t> flux2_rope_axes(int64_t head_dim);

/// The published sizes: "flux2-dev", "flux2-klein-9b", "flux2-klein-4b". Error invalid_argument lists them.
Flux2Config flux2_config(std::string_view name);

/// The config of a checkpoint in BFL names. Relatives that need another forward pass (FLUX.1 and what was
/// made of it, Chroma, video models), LoRA files, and files with biases, which no FLUX.2 has, are refused
/// with error unsupported; missing or malformed tensors are error format.
Flux2Config infer_flux2_config(const std::map<std::string, Shape>& shapes);

/// What shapes can't tell, from diffusers' transformer/config.json: axes_dims_rope, rope_theta, eps. The
/// other fields must say what the weights do (error format), and patch_size must be 1 (error unsupported).
void apply_flux2_json(Flux2Config& config, const io::Json& json);
/// diffusers' transformer/config.json.
io::Json flux2_json(const Flux2Config& config);
/// The fields that such a file may have; all of them are honoured or refused.
std::span<const std::string_view> flux2_fields();

}  // namespace vkflux
