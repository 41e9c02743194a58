// Scaled fp8 as ComfyUI stores it, in both of its dialects: weights in fp8, each with an f32 number beside it
// that its values are multiplied with. The older one has a marker tensor "scaled_fp8" and numbers called
// "LAYER.scale_weight"; the newer one "LAYER.weight_scale", and says the format of every layer in a tensor
// "LAYER.comfy_quant" or in the file's metadata. Every tensor's own type counts: files mix fp8 with others.
#pragma once

#include <map>
#include <set>
#include <string>

#include "model/io/tensor_source.h"

namespace vkflux::io {

struct ScaledFp8 {
  std::map<std::string, float> scales;  // of weights, by the names of their tensors
  std::set<std::string> aside;          // tensors of the dialects that are no parameters
};

/// Nothing for a file without such tensors and metadata, plain fp8 too. Error format: a scale that isn't one
/// finite positive number, a weight without one, a format that contradicts its weight's type, metadata that
/// can't be read. Error unsupported names a format that isn't fp8.
ScaledFp8 read_scaled_fp8(const TensorSource& file);

}  // namespace vkflux::io
