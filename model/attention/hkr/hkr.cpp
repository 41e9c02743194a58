#include "model/attention/hkr/hkr.h"

#include <fmt/format.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "model/attention/hkr/scalar_embedding.h"

namespace vkflux {
namespace {

constexpr int64_t kEmbedding = 32;  // numbers per scalar
constexpr int64_t kConditionerHidden = 128;

bool usable(const std::optional<double>& x) {
  return x && std::isfinite(static_cast<float>(*x));
}

}  // namespace

bool HkrContext::conditioned() const {
  return usable(sigma);
}

std::vector<float> hkr_scalars(float sigma, float cfg) {
  std::vector<float> e = scalar_embedding(sigma, kEmbedding);
  const std::vector<float> second = scalar_embedding(cfg, kEmbedding);
  e.insert(e.end(), second.begin(), second.end());
  return e;
}

HkrFeatures::HkrFeatures(const HkrConfig& c) {
  c.check();
  int64_t in = c.head_dim;
  for (int64_t i = 0; i + 1 < c.layers; ++i) {
    linears.push_back({in, c.width()});
    in = c.width();
  }
  linears.push_back({in, c.feature_dim});
}

Tensor HkrFeatures::operator()(const Tensor& x, const HkrOptions& options) const {
  std::vector<Tensor> weights, biases;
  for (const Linear& l : linears) {
    weights.push_back(l.weight);
    biases.push_back(l.bias);
  }
  return op::feature_network(x, weights, biases, options.feature_norm, options.eps);
}

HkrLayer::HkrLayer(const HkrConfig& config, const HkrOptions& options)
    : phi_q(config),
      phi_k(config),
      conditioner_in{2 * kEmbedding, kConditionerHidden},
      conditioner_out{kConditionerHidden, 4},
      config_(config),
      options_(options) {}

Landmarks HkrLayer::landmarks(const HkrCall& call) const {
  const int64_t keys = call.k.dim(2);
  const int64_t t =
      conditioning_tokens(keys, call.context.conditioning, call.context.text, options_.landmarks);
  if (call.key_mask.defined()) return landmarks_of(call.k, call.key_mask, t, options_.landmarks);
  Cache& c = cache_;
  const bool same = c.landmarks.rows.defined() && c.batch == call.k.dim(0) && c.heads == call.k.dim(1) &&
                    c.keys == keys && c.conditioning == t && c.options == options_.landmarks;
  if (!same) {
    c.landmarks = landmarks_of(call.k, {}, t, options_.landmarks);
    c.batch = call.k.dim(0), c.heads = call.k.dim(1), c.keys = keys, c.conditioning = t;
    c.options = options_.landmarks;
  }
  return c.landmarks;
}

Tensor HkrLayer::embedded(const HkrCall& call) const {
  if (call.scalars.defined()) return call.scalars;
  const auto sigma = static_cast<float>(*call.context.sigma);
  const auto cfg = static_cast<float>(usable(call.context.cfg) ? *call.context.cfg : 1.0);
  Cache& c = cache_;
  if (c.embedding.defined() && c.sigma == sigma && c.cfg == cfg) return c.embedding;
  const std::vector<float> e = hkr_scalars(sigma, cfg);
  c.embedding = Tensor::from(call.q.device(), std::span<const float>(e), {1, 2 * kEmbedding});
  c.sigma = sigma, c.cfg = cfg;
  return c.embedding;
}

HkrResult HkrLayer::forward(const HkrCall& call) const {
  expect(
      "HKR layer",
      call.q.defined() && call.k.defined() && call.v.defined() && call.q.rank() == 4 && call.k.rank() == 4 &&
          call.q.dim(3) == config_.head_dim && call.k.dim(3) == config_.head_dim && call.v.rank() == 4 &&
          call.v.dim(2) == call.k.dim(2),
      fmt::format("needs q[B, H, Nq, D], k[B, H, Nk, D] and v[B, H, Nk, Dv] with D = {}", config_.head_dim),
      {&call.q, &call.k, &call.v});
  HkrResult r;
  const KernelBranch kernel =
      kernel_regression(phi_q, phi_k, call.q, call.k, call.v, call.key_mask, options_);
  r.out_kernel = kernel.out;
  r.den_min = kernel.den_min;
  r.out_land = landmark_attention(call.q, call.k, call.v, landmarks(call), options_);
  if (call.context.conditioned())
    r.conditioner = conditioner_out(conditioner_in(embedded(call), op::Activation::silu));
  const op::HkrBlendOptions options{std::clamp(options_.alpha_max, 0.0f, 1.0f), options_.gamma,
                                    options_.adaptive};
  const op::HkrBlend blend = op::hkr_blend(r.out_kernel, r.out_land, r.conditioner, alpha, options);
  r.out = blend.out;
  r.gate = blend.gate;
  return r;
}

}  // namespace vkflux
