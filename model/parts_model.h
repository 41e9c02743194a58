// A Model whose parts are held by PartWeights: what does not depend on the family.
#pragma once

#include <memory>
#include <vector>

#include "model/family.h"
#include "model/part_weights.h"

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
  explicit PartsModel(Device& device) : device_(device) {}

  Device& device_;
  ModelInfo info_;
  std::unique_ptr<PartWeights> weights_;  // made by the family's constructor
};

}  // namespace vkflux
