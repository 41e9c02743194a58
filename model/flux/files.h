// A FLUX.1 model folder in diffusers' layout, as diffusers itself reads it.
#pragma once

#include <string>

#include "model/family.h"
#include "model/flux/transformer.h"
#include "model/text/clip.h"
#include "model/text/t5.h"

namespace vkflux {

struct Flux1Parts {
  Flux1& transformer;
  ClipText& clip;
  T5Encoder& t5;
  std::string tokenizer, tokenizer_2, autoencoder;  // folders whose files are copied
  Schedule schedule = Schedule::flux1_schnell();
  SamplingDefaults defaults;                    // go to model_index.json as "vkflux"
  io::FileDType matrices = io::FileDType::f16;  // vectors stay F32
};

/// Reads configs, tokenizers and every file's header. Errors: format (missing or contradicting parts),
/// unsupported (a transformer that needs more than text).
std::unique_ptr<Model> open_flux1(Device& device, const ModelFiles& files, const ModelOptions& options);
/// model_index.json is written last, so an interrupted save isn't taken for a checkpoint.
void save_flux1(const std::string& dir, const Flux1Parts& parts);

}  // namespace vkflux
