// The flags of `vkflux sample` that choose sampler, schedule and latents.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/outputs.h"
#include "model/pipeline.h"

namespace vkflux::cli {

struct SamplingArgs {
  std::string sampler, schedule, sigmas;
  std::optional<double> shift, base_shift, max_shift;
  std::string save_latents, from_latents, from_noise;
};

void add_sampling_options(CLI::App& command, SamplingArgs& args);
/// Numbers with commas or blanks between them, strictly falling from at most 1 to at least 0, two or more.
/// Error invalid_argument.
std::vector<double> parse_sigmas(const std::string& text);
/// What the flags say of a request, but for files.
void apply(const SamplingArgs& args, GenerateRequest& request);
/// Reads the files of latents into the request, and takes its size and number of pictures from them where
/// they weren't asked for.
void read_files(const SamplingArgs& args, Pipeline& pipeline, GenerateRequest& request);
void declare_inputs(const SamplingArgs& args, FileUse& files);
/// The prompts that a file of latents was drawn from, an empty one for each picture where it doesn't say.
std::vector<std::string> prompts_of_latents(const std::string& path);

/// Writes a job's latents as they are now, and says so. what: for the message.
void save_latents(const std::string& path, const GenerateJob& job, const GenerateRequest& request,
                  const std::string& model);

}  // namespace vkflux::cli
