// How far a routed picture is from the one of the full model. Terms that need an outside network (LPIPS,
// DreamSim, HPS, BIQA) are known by name and refused until they exist.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// What terms may look at. Latents of any shape with the pictures first, [B, ...]; images [B, 3, H, W] in
/// [-1, 1], undefined unless a term needs them.
struct RewardInput {
  Tensor student, teacher;
  Tensor student_image, teacher_image;
};

class Reward {
 public:
  virtual ~Reward() = default;
  virtual const char* name() const = 0;  // of its metric
  virtual bool needs_images() const { return false; }
  /// The reference takes it over all pictures together, not one by one.
  virtual bool joint() const { return false; }
  /// Distance of x to y[R, N] -> [R], 0 when they are equal; differentiable.
  virtual Tensor distance(const Tensor& x, const Tensor& y) const = 0;
};

/// "rmse" or "cosine" (and "lpips", "dreamsim", "hps", "biqa_quality", "biqa_aesthetic": error unsupported).
/// Error invalid_argument lists them all.
std::unique_ptr<Reward> make_reward(const std::string& name);
/// All names, whether they exist in this build or not.
const std::vector<std::string>& reward_names();

enum class RewardOn { latents, images };
/// "latents" or "images".
RewardOn parse_reward_on(const std::string& text);

/// The weighted sum of terms.
class QualityLoss {
 public:
  /// Terms of weight 0 are left out, but rmse and cosine are measured all the same if they are listed. Error
  /// invalid_argument for negative or infinite weights.
  explicit QualityLoss(const std::vector<std::pair<std::string, double>>& weights = {{"rmse", 1},
                                                                                     {"cosine", 1}},
                       RewardOn on = RewardOn::latents);
  bool needs_images() const { return needs_images_; }
  /// False when every weight is 0.
  bool learns() const { return learns_; }

  struct Value {
    Tensor loss;                          // [R], or [] for whole()
    std::map<std::string, Tensor> terms;  // by Reward::name(), likewise, unweighted
  };
  /// One value for each picture, [B].
  Value each(const RewardInput& in) const;
  /// One value for all, []: as the reference.
  Value whole(const RewardInput& in) const;

 private:
  struct Term {
    std::unique_ptr<Reward> reward;
    float weight;
  };
  Value evaluate(const RewardInput& in, bool whole) const;
  std::vector<Term> terms_;
  RewardOn on_;
  bool needs_images_ = false, learns_ = false;
};

/// The reference's one-sided budget term of the loss, relu(full share - (1 - target)); training uses the
/// symmetric one of reward_terms instead.
double one_sided_efficiency(double full_ratio, double target_ttr_ratio);

}  // namespace vkflux
