// LoRA files as people name them: the option --lora of every command that runs a model, and tags in prompts.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "app/outputs.h"
#include "model/io/json.h"
#include "model/lora/use.h"
#include "train/run_inputs.h"

namespace vkflux {

struct LoraArgs {
  std::vector<std::string> files;   // FILE or FILE:WEIGHT, as given
  std::string folder;               // of those that prompts name; "": none are looked for
  std::vector<LoraUse> uses;        // what the files stand for, and the tags that were taken
  std::vector<std::string> hashes;  // of the files, by place; see hash()

  /// Takes tags <lora:NAME:WEIGHT> out of the prompts, where a folder is given. All pictures of a run have
  /// the same weights, so prompts with other tags are Error invalid_argument; io where the folder has no such
  /// file.
  void take_tags(std::vector<std::string>& prompts);
  /// Checksums of the files, for what pictures say about themselves.
  void hash();

  void declare(FileUse& files) const;
  /// Adds the files and weights, where there are any.
  void describe(RunInputs& inputs) const;
  /// [{"name", "weight", "hash"}]
  io::Json json() const;
};

/// Adds --lora.
void add_lora_option(CLI::App& command, LoraArgs& args);
/// Adds --lora-dir.
void add_lora_folder_option(CLI::App& command, LoraArgs& args);

/// "style.safetensors:0.8"; the weight is 1 where none is given. Error invalid_argument.
LoraUse parse_lora(const std::string& text);

}  // namespace vkflux
