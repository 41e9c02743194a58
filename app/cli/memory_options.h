// How much device memory there is, and how the autoencoder works in little of it: flags of every command that
// draws.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "model/pipeline.h"

namespace vkflux {

struct MemoryArgs {
  std::string vram, tiling = "auto", tile;
  double overlap = 0.25;
  bool no_prompt_cache = false;
};

/// "8", "7.5G" and "7.5GiB" are GiB, "900M" and "900MiB" MiB. Error invalid_argument.
uint64_t memory_size(const std::string& text, const std::string& what);
/// Adds --vram.
CLI::Option* add_vram_option(CLI::App& command, MemoryArgs& args);
/// Adds --vae-tiling, --vae-tile, --vae-overlap and --no-prompt-cache, too.
void add_memory_options(CLI::App& command, MemoryArgs& args);
/// Bytes of --vram; 0: not given.
uint64_t vram_of(const MemoryArgs& args);
/// The options with what the flags say. Error invalid_argument.
ModelOptions with_memory(ModelOptions options, const MemoryArgs& args);

}  // namespace vkflux
