// The option --weights of every command that runs a model.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "model/pipeline.h"

namespace vkflux {

/// "file" (every matrix as it is stored), f32, f16, bf16, f8 (E4M3), or a type of blocks such as q4_k.
void add_weights_option(CLI::App& command, std::string& value);
/// The types of matrices by the names that flags have for them, without "file".
const std::vector<std::string>& weight_type_names();
DType weight_type(const std::string& name);
/// Checkpoints of single parts, by the names of the parts' folders.
using PartFiles = std::map<std::string, std::string>;
/// Adds --diffusion-model, --clip_l, --t5xxl and --vae, as other programs call them.
void add_part_options(CLI::App& command, PartFiles& files);
/// The flag of a part's folder.
std::string part_flag(const std::string& part);
/// Options with these weights and parts; what was kept otherwise than wanted is logged.
ModelOptions model_options(const std::string& weights, const PartFiles& files = {});

}  // namespace vkflux
