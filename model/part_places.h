// The places of a model's parts; model/model_files.h finds them.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace vkflux {

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

}  // namespace vkflux
