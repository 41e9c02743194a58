// LoRA files for people, whatever model they are for.
#pragma once

#include <optional>

#include "model/io/json.h"
#include "model/io/tensor_source.h"

namespace vkflux::lora {

/// What a file is: method, dialect, ranks, alphas, what it changes of which family; nothing when it holds no
/// adapters.
std::optional<io::Json> describe_lora(const io::TensorSource& file);

}  // namespace vkflux::lora
