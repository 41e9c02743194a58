// Which matrices of a model may be packed, and which stay in high precision.
#pragma once

#include <string>
#include <vector>

#include "model/io/safetensors.h"
#include "model/module.h"

namespace vkflux {

/// How a parameter is kept on the device when matrices are wanted as `wanted`. Everything but matrices is
/// f32. f32, f16 and bf16 are what every matrix becomes. Of packed types there are exceptions:
///  - the layers that everything passes through (img_in, txt_in, time_in, vector_in, guidance_in,
///  final_layer),
///    tables (shared, embeddings, relative_attention_bias) and all of CLIP are 16-bit: bf16 when the file has
///    them so, else f16;
///  - modulation layers are q8_0;
///  - rows that are no multiple of the type's block are q8_0 where that fits them, else 16-bit.
DType storage_of(const Param& p, DType wanted, io::FileDType stored);

/// One sentence on the matrices of `params` that the packed type `wanted` doesn't hold because of their rows'
/// length; "" when there are none.
std::string misfits(const std::vector<Param>& params, DType wanted);

}  // namespace vkflux
