// What golden cases of both generations of FLUX share.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "app/verify/case.h"
#include "model/backbone.h"

namespace vkflux::verify {

inline constexpr double kRopeTolerance = 2e-5;

/// The table of ids, with the axes and theta of a config.
Tensor rope_of(Case& c, const Tensor& ids, const nlohmann::json& config, double theta);
/// (cos, sin) [B, N, D/2, 2] as the reference's [B, 1, N, D/2, 2, 2] of [[cos, -sin], [sin, cos]].
std::vector<float> rotation_matrices(const Tensor& table);
/// "mlp_ratio" times the hidden width.
int64_t mlp_width(int64_t hidden, const nlohmann::json& config);
/// The values of several inputs [B, n, axes] behind one another along n.
std::vector<float> joined_ids(Case& c, const std::vector<std::string>& inputs);

/// A backbone that also sees what the file gives beside the state: channels behind those of every token
/// ("img_cond"), and tokens behind the picture's ("img_cond_seq"), whose predictions are dropped.
class Conditioned final : public Backbone {
 public:
  Conditioned(Case& c, Backbone& model);
  void prepare(PassInputs& in, std::span<const float> ids) override;
  const std::vector<PassPart>& parts() const override { return model_.parts(); }
  void run(size_t part, Pass& pass) override { model_.run(part, pass); }
  Tensor finish(Pass& pass) override;

 protected:
  std::unique_ptr<Pass> embed(const PassInputs& in, Trace* trace) override;

 private:
  PassInputs joined(const PassInputs& in) const;
  Backbone& model_;
  Tensor channels_, tokens_;
  int64_t count_ = 0;  // tokens of the picture
};

/// The trajectory of Euler steps over "in.timesteps" from "in.img", with the case's tolerances and checks of
/// every step. ids: the inputs that hold the positions, in their order.
void check_trajectory(Case& c, Backbone& model, const Condition& condition,
                      const std::vector<std::string>& ids);

/// Tables of positions, and q and k turned by them, and sinusoids of noise levels: one case, or sub-cases by
/// the names in the config.
void check_rope(Case& c, double theta);

}  // namespace vkflux::verify
