// A Model whose parts are held by PartWeights: what does not depend on the family.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "model/family.h"
#include "model/model_index.h"
#include "model/part_weights.h"
#include "vk/error.h"

namespace vkflux {

class PartsModel : public Model {
 public:
  const ModelInfo& info() const override { return info_; }
  std::vector<ModelPart> parts() const override { return weights_->parts(); }
  const Residency& residency() const override { return weights_->residency(); }
  void set_residency(const Residency& r) override { weights_->set_residency(r); }
  uint64_t held_bytes() const override { return weights_->held_bytes(); }
  std::shared_ptr<void> set_aside() override { return weights_->set_aside(); }

 protected:
  /// files: none for a model of shapes alone.
  explicit PartsModel(Device& device, ModelFiles files = {}) : device_(device), files_(std::move(files)) {}

  /// Hands a part's tensors, under our names, to fn.
  template <class F>
  auto with_tensors(const char* part, const io::NameTable& table, F fn) const {
    const ErrorContext context(part);
    const auto file = io::open_tensors(files_.parts.at(part).path);
    return fn(io::NamedTensors(*file, table));
  }
  io::Json config_of(const char* part) const { return read_config(files_.parts.at(part)); }
  /// Opens the parts' files.
  PartWeights::Open opener() const {
    return [this](const PartRecipe& part) {
      const ErrorContext context(part.name);
      return open_named(files_.parts.at(part.name).path, part.names);
    };
  }

  Device& device_;
  ModelFiles files_;
  ModelInfo info_;
  std::unique_ptr<PartWeights> weights_;  // made by the family's constructor
};

}  // namespace vkflux
