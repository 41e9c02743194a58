// Where the parts of a model lie, whatever form it comes in: a folder in diffusers' layout, a repository in
// the Hugging Face cache, one file with all parts, or a transformer's file beside files of the others, named
// by flags or found by the conventions of ComfyUI's models/ folders.
#pragma once

#include <string>

#include "model/part_places.h"

namespace vkflux {

struct Family;
struct ModelOptions;

struct FoundModel {
  const Family* family = nullptr;
  ModelFiles files;
};

/// Finds the parts of `model`: a folder, a file, or ORGANISATION/NAME[@REVISION][/FILE] of the Hugging Face
/// cache. Reads indexes and headers, no weights. Of options: files and variant. Error io or format says what
/// is missing or ambiguous and which flag or command gives it; unsupported what is another kind of model;
/// invalid_argument for a part that the family hasn't.
FoundModel find_model(const std::string& model, const ModelOptions& options);

}  // namespace vkflux
