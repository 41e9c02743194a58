// Writes a checkpoint folder in diffusers layout, as Pipeline::load and diffusers itself read it.
#pragma once

#include <string>

#include "model/pipeline.h"

namespace vkflux {

struct PipelineParts {
  Flux1& transformer;
  AutoencoderKL& autoencoder;
  ClipText& clip;
  T5Encoder& t5;
  Schedule schedule;
  PipelineDefaults defaults;                    // go to model_index.json as "vkflux"
  std::string tokenizer, tokenizer_2;           // folders whose files are copied
  io::FileDType matrices = io::FileDType::f16;  // vectors stay F32
};

/// model_index.json is written last, so an interrupted save isn't taken for a checkpoint.
void save_pipeline(const std::string& dir, const PipelineParts& parts);

}  // namespace vkflux
