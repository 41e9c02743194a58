// Where the parts of a model lie, whatever form it comes in: a folder in diffusers' layout, a repository in
// the Hugging Face cache, one file with all parts, or a transformer's file beside files of the others, named
// by flags or found by the conventions of ComfyUI's models/ folders.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace vkflux {

struct Family;
struct ModelOptions;

struct ModelFiles {
  struct Part {
    std::string path;    // what io::open_tensors() takes; several parts may lie in one file
    std::string config;  // config.json that belongs to it; empty: sizes follow from the tensors
  };
  std::string name;                   // as it was asked for
  std::string folder;                 // of a model in diffusers' layout, else empty
  std::map<std::string, Part> parts;  // by the names of diffusers' folders: "transformer", "text_encoder_2"
  std::map<std::string, std::string> tokenizers;  // folders or files, likewise; those that were found
  std::vector<std::string> neighbours;  // folders of other programs that may have tokenizers: see there
  std::string index, scheduler;         // model_index.json and scheduler_config.json, or empty
  std::vector<std::string> remarks;     // sentences on what was found where

  /// Every file and folder that loading reads.
  std::vector<std::string> paths() const;
};

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
