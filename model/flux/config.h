// Shape of a FLUX.1 transformer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "autograd/tensor.h"
#include "model/io/json.h"

namespace vkflux {

struct Flux1Config {
  int64_t in_channels = 64, out_channels = 64;  // of a token
  int64_t vec_in_dim = 768, context_in_dim = 4096;
  int64_t hidden = 3072, mlp_hidden = 12288;
  int64_t heads = 24, head_dim = 128;
  int64_t depth = 19, depth_single = 38;
  std::vector<int64_t> axes_dim = {16, 56, 56};
  double theta = 10000;
  bool guidance = false;

  /// Error invalid_argument, with the reason, for sizes that can't be.
  void check() const;
  int layers() const { return static_cast<int>(depth + depth_single); }
};

/// RoPE axes of a head size when nothing states them: an eighth of the channels (rounded up until the rest
/// makes two even halves) for the index, the rest split between rows and columns. 128 -> 16, 56, 56;
/// 64 -> 8, 28, 28.
std::vector<int64_t> default_rope_axes(int64_t head_dim);

/// The factor of the autoencoder whose masks these channels take besides a token and a masked picture's: 8
/// for 384 in and 64 out. 0: it isn't a Fill transformer.
int64_t flux1_fill_factor(const Flux1Config& config);

/// The config of a checkpoint in BFL names. Close relatives that need another forward pass (FLUX.2, Chroma,
/// Flex.2, video models) are refused with error unsupported; missing or malformed tensors are error format.
Flux1Config infer_flux1_config(const std::map<std::string, Shape>& shapes);

/// What shapes can't tell, from diffusers' transformer/config.json (axes_dims_rope); checked against config.
void apply_flux1_json(Flux1Config& config, const io::Json& json);
/// diffusers' transformer/config.json.
io::Json flux1_json(const Flux1Config& config);

}  // namespace vkflux
