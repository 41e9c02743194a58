// What the files of a model say beside its tensors: model_index.json, with what we add ("vkflux"), and
// configs.
#pragma once

#include <string>

#include "model/io/json.h"
#include "model/part_places.h"
#include "model/sampler/request.h"

namespace vkflux {

/// The file's object; an empty one for models that have none.
io::Json read_model_index(const ModelFiles& files);
/// A part's config.json; an empty object for one that has none.
io::Json read_config(const ModelFiles::Part& part);
/// The name of the pipeline's class, or "".
std::string pipeline_of(const io::Json& index);
/// Takes what the object "vkflux" recommends: steps, cfg, guidance, size (a number or [width, height]). Error
/// format names what can't be.
void apply_recommended(SamplingDefaults& defaults, const io::Json& index);
/// `fallback`, or the "txt_tokens" of that object; 1 to 4096, and `wanted` in place of both unless it is 0.
/// Error invalid_argument or format.
int64_t text_tokens(const io::Json& index, int64_t fallback, int64_t wanted);
/// What a trained model's index says of its parts and of what is recommended. parts: name, library and class.
io::Json model_index(const std::string& pipeline, const io::Json& parts, const SamplingDefaults& defaults);

}  // namespace vkflux
