// The rows: a new family is a line here, and what its row points to.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "model/component.h"
#include "model/family.h"
#include "model/flux/family.h"
#include "model/text/clip.h"
#include "model/text/t5.h"
#include "model/vae/load.h"
#include "vk/error.h"

namespace vkflux {

const Residency& Model::residency() const {
  static const Residency none;
  return none;
}

std::span<const Family> families() {
  static const std::array rows{flux1_family()};
  return rows;
}

std::span<const ComponentKind> component_kinds() {
  static const std::array rows{flux1_component(), autoencoder_component(), clip_component(), t5_component()};
  return rows;
}

const Family& family(std::string_view name) {
  std::string known;
  for (const Family& f : families()) {
    if (f.name == name) return f;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", f.name);
  }
  throw Error(ErrorCode::invalid_argument, fmt::format("model family {}: known are {}", name, known));
}

const Family& family_of(const std::string& folder) {
  const std::string origin = "model_index.json";
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(folder, ignored);
  if (!is_folder || !std::filesystem::exists(std::filesystem::path(folder) / origin, ignored)) {
    const bool there = std::filesystem::exists(folder, ignored);
    throw Error(ErrorCode::io,
                fmt::format("{}; a model is a folder in diffusers' layout: {} beside transformer/, vae/, "
                            "text_encoder/, text_encoder_2/, tokenizer/, tokenizer_2/ and scheduler/{}",
                            is_folder ? "there is no model_index.json"
                            : there   ? "this is a file"
                                      : "no such folder",
                            origin, there && !is_folder ? " (vkflux inspect says what a file holds)" : ""));
  }
  const io::Json index = io::read_json(folder + "/" + origin);
  const auto type = io::get_or<std::string>(index, "_class_name", "FluxPipeline", origin);
  std::string known;
  for (const Family& f : families()) {
    if (f.pipeline(type)) return f;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", f.title);
  }
  throw Error(ErrorCode::unsupported,
              fmt::format("{}: the pipeline is {}; known are those of {}", origin, type, known));
}

}  // namespace vkflux
