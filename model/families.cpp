// The rows: a new family is a line here, and what its row points to.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "model/component.h"
#include "model/family.h"
#include "model/flux/family.h"
#include "model/flux2/component.h"
#include "model/flux2/family.h"
#include "model/text/clip.h"
#include "model/text/decoder.h"
#include "model/text/t5.h"
#include "model/vae/load.h"
#include "model/vae/tiny.h"
#include "vk/error.h"

namespace vkflux {

const Residency& Model::residency() const {
  static const Residency none;
  return none;
}

std::span<const Family> families() {
  static const std::array rows{flux1_family(), flux2_family()};
  return rows;
}

std::span<const ComponentKind> component_kinds() {
  static const std::array rows{flux1_component(),
                               flux2_component(),
                               autoencoder_component(),
                               flux2_autoencoder_component(),
                               tiny_autoencoder_component(),
                               clip_component(),
                               t5_component(),
                               qwen3_component(),
                               mistral_component()};
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

std::vector<std::string> published_models() {
  std::vector<std::string> out;
  for (const Family& f : families()) out.insert(out.end(), f.published.begin(), f.published.end());
  return out;
}

std::unique_ptr<Model> published_model(Device& device, std::string_view name, const ModelOptions& options) {
  for (const Family& f : families()) {
    if (std::find(f.published.begin(), f.published.end(), name) != f.published.end())
      return f.shapes(device, name, options);
  }
  throw Error(ErrorCode::invalid_argument,
              fmt::format("no shapes of {}: there are {}", name, fmt::join(published_models(), ", ")));
}

}  // namespace vkflux
