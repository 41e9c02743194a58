#include "train/controller/reward.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr float kRmseEps = 1e-8f, kNormFloor = 1e-8f;

/// sqrt(mean (x - y)^2 + 1e-8)
class Rmse final : public Reward {
 public:
  const char* name() const override { return "rmse"; }
  bool joint() const override { return true; }
  Tensor distance(const Tensor& x, const Tensor& y) const override {
    return op::unary(op::affine(op::mean(op::unary(op::sub(x, y), op::Unary::square), {1}), 1, kRmseEps),
                     op::Unary::sqrt);
  }
};

/// 1 - cosine, norms floored at 1e-8. As half the squared distance of the unit vectors: exact where 1 -
/// cosine in f32 would be rounding alone.
class Cosine final : public Reward {
 public:
  const char* name() const override { return "cosine_distance"; }
  Tensor distance(const Tensor& x, const Tensor& y) const override {
    const Tensor u = op::l2norm(x, kNormFloor), v = op::l2norm(y, kNormFloor);
    const Tensor half = op::affine(op::sum(op::unary(op::sub(u, v), op::Unary::square), {1}), 0.5f);
    return op::add(half, op::add(shortfall(u), shortfall(v)));
  }

 private:
  /// (1 - |u|^2) / 2 of a vector that the floor kept from unit length, else 0.
  static Tensor shortfall(const Tensor& u) {
    constexpr float kRounding = 1e-4f;
    const Tensor missing = op::affine(op::sum(op::unary(u, op::Unary::square), {1}), -1, 1 - kRounding);
    return op::affine(op::unary(missing, op::Unary::relu), 0.5f / (1 - kRounding));
  }
};

Tensor clamped(const Tensor& x) {
  const Tensor above = op::unary(op::affine(x, 1, 1), op::Unary::relu);
  return op::affine(op::unary(op::affine(above, -1, 2), op::Unary::relu), -1, 1);
}

Tensor rows(const Tensor& x, int64_t n) {
  return op::reshape(x, {n, n ? x.numel() / n : 0});
}

}  // namespace

const std::vector<std::string>& reward_names() {
  static const std::vector<std::string> names{"rmse", "cosine",       "lpips",         "dreamsim",
                                              "hps",  "biqa_quality", "biqa_aesthetic"};
  return names;
}

std::unique_ptr<Reward> make_reward(const std::string& name) {
  if (name == "rmse") return std::make_unique<Rmse>();
  if (name == "cosine") return std::make_unique<Cosine>();
  const auto& names = reward_names();
  if (std::find(names.begin(), names.end(), name) != names.end()) {
    throw Error(ErrorCode::unsupported,
                fmt::format("the reward '{}' needs a network that this build doesn't have: set its weight to "
                            "0 and use rmse and cosine",
                            name));
  }
  throw Error(ErrorCode::invalid_argument,
              fmt::format("unknown reward '{}': expected one of {}", name, fmt::join(names, ", ")));
}

RewardOn parse_reward_on(const std::string& text) {
  if (text == "latents") return RewardOn::latents;
  if (text == "images") return RewardOn::images;
  throw Error(ErrorCode::invalid_argument, fmt::format("reward on '{}': expected latents or images", text));
}

QualityLoss::QualityLoss(const std::vector<std::pair<std::string, double>>& weights, RewardOn on) : on_(on) {
  for (const auto& [name, weight] : weights) {
    if (!(weight >= 0) || !std::isfinite(weight)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("reward weight {} = {}: expected 0 or more", name, weight));
    }
    // Terms without cost are measured even when they don't count.
    if (weight == 0 && name != "rmse" && name != "cosine") continue;
    learns_ |= weight > 0;
    terms_.push_back({make_reward(name), static_cast<float>(weight)});
    needs_images_ |= terms_.back().reward->needs_images();
  }
  needs_images_ |= on == RewardOn::images;
}

QualityLoss::Value QualityLoss::evaluate(const RewardInput& in, bool whole) const {
  Value out;
  for (const Term& t : terms_) {
    const bool images = on_ == RewardOn::images || t.reward->needs_images();
    const Tensor& x = images ? in.student_image : in.student;
    const Tensor& y = images ? in.teacher_image : in.teacher;
    if (!x || !y || !(x.shape() == y.shape()) || x.rank() < 1) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the reward {} needs {} of student and teacher, of one shape", t.reward->name(),
                              images ? "images" : "latents"));
    }
    if (images && (x.rank() != 4 || x.dim(1) != 3)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("the reward {} needs images [B, 3, H, W], given {}", t.reward->name(),
                              x.shape().str()));
    }
    const int64_t n = whole && t.reward->joint() ? 1 : x.dim(0);
    Tensor d = t.reward->distance(rows(images ? clamped(x) : x, n), rows(images ? clamped(y) : y, n));
    if (whole) d = op::mean_all(d);
    out.terms[t.reward->name()] = d;
    const Tensor part = op::affine(d, t.weight);
    out.loss = out.loss ? op::add(out.loss, part) : part;
  }
  return out;
}

QualityLoss::Value QualityLoss::each(const RewardInput& in) const {
  return evaluate(in, false);
}
QualityLoss::Value QualityLoss::whole(const RewardInput& in) const {
  return evaluate(in, true);
}

double one_sided_efficiency(double full_ratio, double target_ttr_ratio) {
  return std::max(0.0, full_ratio - (1 - std::clamp(target_ttr_ratio, 0.0, 1.0)));
}

}  // namespace vkflux
