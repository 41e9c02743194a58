// Models with random weights, for pipelines that tests write to disk.
#pragma once

#include <string>

#include "model/module.h"
#include "tests/harness/gpu.h"

namespace vkflux::test {

/// The tokenizers of small vocabularies are its folders "clip" and "t5".
inline const std::string kTokenizers = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

/// Gives every parameter a tensor: scales of norms are 1, the others N(0, deviation^2).
template <class Model>
void randomise(Model& model, uint64_t seed, float deviation) {
  auto params = parameters(model);
  allocate(params, device());
  initialise(
      params,
      [=](const Param& p) {
        const bool scale =
            p.name.find("norm") != std::string::npos && !p.name.ends_with("bias") && p.shape.rank() == 1;
        return scale ? Init{Init::Kind::constant, 1} : Init{Init::Kind::normal, deviation};
      },
      seed);
}

}  // namespace vkflux::test
