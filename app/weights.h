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
/// What is said of a model besides its name; app/cli/model_flags.h has the flags.
struct ModelFlags {
  std::map<std::string, std::string> files;  // of single parts and tokenizers: ModelOptions::files
  std::string variant;
  int64_t text_length = 0;           // 0: the model's
  std::vector<int64_t> text_states;  // empty: the model's
  bool plain_prompts = false;
  std::string reference_cache = "auto";  // or on, off
};
/// Options with these weights and parts; what was kept or found otherwise than wanted is logged.
ModelOptions model_options(const std::string& weights, const ModelFlags& flags = {});

}  // namespace vkflux
