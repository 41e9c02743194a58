// The flags by which every command takes a model: --model, files of single parts, variants.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/outputs.h"
#include "app/weights.h"
#include "train/run_inputs.h"

namespace vkflux::cli {

/// Adds --model, which must be given where `required`, a flag for each part of the known families
/// (--diffusion-model, --clip_l, --t5xxl, --llm, --vae, as other programs call them), --tokenizer,
/// --tokenizer_2 and
/// --variant.
void add_model_options(CLI::App& command, std::string& model, ModelFlags& flags, bool required = true);
/// Adds what says how prompts and reference pictures are read: --text-length, --text-states, --plain-prompts
/// and
/// --ref-cache.
void add_reading_options(CLI::App& command, ModelFlags& flags);

/// Every file of the model is read. Who opens it says what is wrong with it.
void declare_model(FileUse& use, const std::string& model, const ModelFlags& flags);
/// The same for a run that must go on with the same files: "model", and "variant" where one is chosen. Error
/// as find_model().
void describe_model(RunInputs& inputs, const std::string& model, const ModelFlags& flags);

}  // namespace vkflux::cli
