// The rows: a new family is a line here, and what its row points to.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/component.h"
#include "model/family.h"
#include "model/flux/family.h"
#include "model/text/clip.h"
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
  static const std::array rows{flux1_family()};
  return rows;
}

std::span<const ComponentKind> component_kinds() {
  static const std::array rows{
      flux1_component(), autoencoder_component(), flux2_autoencoder_component(), tiny_autoencoder_component(),
      clip_component(),  t5_component()};
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

}  // namespace vkflux
