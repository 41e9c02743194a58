// The option --weights of every command that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "model/pipeline.h"

namespace vkflux {

/// f32, f16, bf16, f8 (E4M3), q8_0 or q4_k.
void add_weights_option(CLI::App& command, std::string& value);
/// Options with these weights; what was kept otherwise than wanted is logged.
ModelOptions model_options(const std::string& weights);

}  // namespace vkflux
