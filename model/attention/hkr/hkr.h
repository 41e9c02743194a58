// HKR attention ("hybrid kernel regression"), the student that replaces softmax attention in single layers:
// a normalised kernel regression with learnt positive features, corrected by softmax attention over a few
// landmark keys, blended per token by a bounded gate. Linear in the number of tokens.
// Source: Flux2TTR v2.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/run.h"
#include "model/attention/attention.h"
#include "model/attention/hkr/landmarks.h"
#include "model/layers.h"

namespace vkflux {

/// What the shapes of a student's tensors say.
struct HkrConfig {
  int64_t head_dim = 128;
  int64_t feature_dim = 256;  // F; the reference takes multiples of 256, we any multiple of 32
  int64_t hidden = 0;         // W; 0: max(D, 2 F), as the reference
  int64_t layers = 3;         // of a feature network, 2 or 3 (the reference: 3)

  int64_t width() const { return hidden > 0 ? hidden : std::max(head_dim, 2 * feature_dim); }
  /// Error invalid_argument names the field that can't be.
  void check() const;
};

/// Everything else that a layer's result depends on.
struct HkrOptions {
  LandmarkOptions landmarks;
  int64_t query_chunk = 256, key_chunk = 1024;  // change rounding and memory only
  int64_t keep_limit = 256 << 20;  // bytes that a recorded pass may keep for backward; above: chunks again
  float alpha_max = 0.2f, gamma = 2.0f, eps = 1e-6f;
  bool adaptive = true;      // blend by the branches' disagreement; false: one weight for all tokens
  bool feature_norm = true;  // L2-normalise the features
};

/// One feature network: D -> W (-> W) -> F with SiLU between. Names are the indices of a torch Sequential.
struct HkrFeatures {
  std::vector<Linear> linears;

  HkrFeatures() = default;
  explicit HkrFeatures(const HkrConfig& c);
  template <class V>
  void visit(V& v) {
    for (size_t i = 0; i < linears.size(); ++i) v.child(std::to_string(2 * i) + ".", linears[i]);
  }
  /// x[R, D] -> positive features [R, F], each row of norm just under 1 (with feature_norm).
  Tensor operator()(const Tensor& x, const HkrOptions& options) const;
};

/// What a student is told about a call besides its tensors; samples keep it as it was.
struct HkrContext {
  std::optional<int64_t> conditioning, text;  // tokens in front: conditioning wins, then text, then the guess
  std::optional<double> sigma, cfg;           // sigma absent or not finite: no conditioner; cfg likewise: 1

  bool conditioned() const;
};

struct HkrCall {
  Tensor q, k, v;   // [B, H, Nq, D], [B, H, Nk, D], [B, H, Nk, Dv]: after QK norm and RoPE
  Tensor key_mask;  // u8 [B, Nk], 1 = keep; undefined: all. A row without any keeps key 0
  HkrContext context = {};
  Tensor scalars = {};  // hkr_scalars() of the context, [1, 64]; undefined: made here
};

/// The conditioner's input: embeddings of sigma and cfg, 32 numbers each.
std::vector<float> hkr_scalars(float sigma, float cfg);

struct HkrResult {
  Tensor out;                   // [B, H, Nq, Dv]
  Tensor out_kernel, out_land;  // before the conditioner
  Tensor conditioner;           // [1, 4]: kernel scale, bias, landmark scale, bias; undefined: skipped
  Tensor gate;                  // [B, H, Nq] in (0, 1); times alpha_max: the landmark branch's weight
  Tensor den_min;               // [1]: smallest unclamped denominator; infinite without queries
};

/// The kernel branch: out_i = sum_j m_j (phi_q(q_i) . phi_k(k_j)) v_j / max(the same without v, eps), without
/// hidden layers or features of all tokens at once when those would be large. v[B, H, Nk, Dv] with any Dv.
struct KernelBranch {
  Tensor out;      // [B, H, Nq, Dv]
  Tensor den_min;  // [1]
};
KernelBranch kernel_regression(const HkrFeatures& phi_q, const HkrFeatures& phi_k, const Tensor& q,
                               const Tensor& k, const Tensor& v, const Tensor& key_mask,
                               const HkrOptions& options);

/// Landmarks of a call, on the device.
struct Landmarks {
  Tensor rows;      // i32 [B H M]: rows of k[B H Nk, D]
  Tensor key_mask;  // u8 [B, M] or undefined; every row keeps at least one
  int64_t count = 0;
};
/// Waits for the device when there is a mask.
Landmarks landmarks_of(const Tensor& k, const Tensor& key_mask, int64_t conditioning,
                       const LandmarkOptions& options);
/// The landmark branch: softmax attention over the landmarks alone, scaled by 1/sqrt(D).
Tensor landmark_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Landmarks& landmarks,
                          const HkrOptions& options);

/// The student of one layer, shared by all its heads. Differentiable with respect to its parameters
/// and to q, k, v where the tape watches them; the gate's statistics are constants, as in the reference.
class HkrLayer {
 public:
  explicit HkrLayer(const HkrConfig& config, const HkrOptions& options = {});

  const HkrConfig& config() const { return config_; }
  HkrOptions& options() { return options_; }
  const HkrOptions& options() const { return options_; }

  template <class V>
  void visit(V& v) {
    v("alpha", alpha, Shape{});
    v.child("kernel.phi_net_q.", phi_q);
    v.child("kernel.phi_net_k.", phi_k);
    v.child("conditioner.mlp.0.", conditioner_in);
    v.child("conditioner.mlp.2.", conditioner_out);
  }
  /// Errors: invalid_argument (shapes). Nothing waits for the device unless there is a key mask.
  HkrResult forward(const HkrCall& call) const;

  Tensor alpha;  // logit
  HkrFeatures phi_q, phi_k;
  Linear conditioner_in, conditioner_out;

 private:
  Landmarks landmarks(const HkrCall& call) const;
  Tensor embedded(const HkrCall& call) const;

  /// What the last call uploaded, for the next one of the same shape or step.
  struct Cache {
    int64_t batch = 0, heads = 0, keys = 0, conditioning = 0;
    LandmarkOptions options;
    Landmarks landmarks;
    float sigma = 0, cfg = 0;
    Tensor embedding;  // [1, 64]
  };
  HkrConfig config_;
  HkrOptions options_;
  mutable Cache cache_;
};

/// How a student starts: linears uniform in +-1/sqrt(fan in), the second conditioner layer zero, alpha the
/// logit of alpha_init (-5 at 0 or less, 5 at 1 or more).
InitRule hkr_init(const HkrConfig& config, double alpha_init = 0.1);
double alpha_logit(double alpha_init);
/// Config of a layer whose tensors have these shapes (names as in HkrLayer::visit). Error format.
HkrConfig infer_hkr_config(const std::vector<std::pair<std::string, Shape>>& shapes);

/// Multiply-adds of one forward pass times two, and the bytes that must move.
Cost hkr_cost(const HkrConfig& config, const HkrOptions& options, const AttentionShape& shape);

}  // namespace vkflux
