// The routing controller: a small network that says, for a noise level, guidance and picture size, which
// layers should keep full attention.
//
// File: safetensors with the tensors of ControllerNet::visit; metadata "format" = "flux2_ttr_controller_v1",
// "num_layers", "embed_dim", "hidden_dim", and "model" = a JSON object, the transformer it was trained for.
// Training adds "optimizer.*" tensors and the reward's baseline, which inference ignores.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/io/safetensors.h"
#include "model/layers.h"
#include "model/routing/policy.h"
#include "model/routing/router.h"

namespace vkflux {

struct ControllerConfig {
  int64_t layers = 0;  // that may be replaced
  int64_t embed_dim = 64, hidden_dim = 256;
  /// Error invalid_argument names the field that can't be.
  void check() const;
};

class ControllerNet {
 public:
  explicit ControllerNet(const ControllerConfig& config);
  const ControllerConfig& config() const { return config_; }

  template <class V>
  void visit(V& v) {
    v.child("resolution_embed.proj.0.", resolution_in_);
    v.child("resolution_embed.proj.2.", resolution_out_);
    v.child("mlp.0.", in_);
    v.child("mlp.2.", hidden_);
    v.child("mlp.4.", out_);
  }

  /// Logits [S, layers] of S inputs; positive leans to full attention. Differentiable with respect to the
  /// parameters.
  Tensor forward(std::span<const RouteInput> inputs) const;
  /// The embedded picture size, [S, embed_dim].
  Tensor resolution(std::span<const RouteInput> inputs) const;

 private:
  ControllerConfig config_;
  Linear resolution_in_, resolution_out_, in_, hidden_, out_;
};

/// Every linear uniform in +-1/sqrt(fan in), biases too.
InitRule controller_init(const ControllerConfig& config);

/// Reads a controller. Errors: format (not a controller, damaged), invalid_argument when it was trained for
/// another transformer; both values are named.
std::shared_ptr<ControllerNet> load_controller(Device& device, const std::string& path,
                                               const BackboneLayout& expected);
/// The same checks without loading; the network's sizes must be those of `config`.
void check_controller(const std::string& path, const ControllerConfig& config,
                      const BackboneLayout& expected);
/// What a file holds of a controller, for a writer that adds its own.
void append_controller(ControllerNet& net, const BackboneLayout& model, std::vector<io::TensorData>& tensors,
                       std::map<std::string, std::string>& metadata);
/// Writes a file for inference, atomically.
void save_controller(const std::string& path, ControllerNet& net, const BackboneLayout& model,
                     const std::map<std::string, std::string>& more = {});

/// The learnt router: logits of all steps at once, then the policy. Draws are functions of (seed, step,
/// layer).
class ControllerRouter final : public Router {
 public:
  /// eligible[l] = 0: layer l stays on full attention. Error invalid_argument when their number isn't the
  /// controller's.
  ControllerRouter(std::shared_ptr<const ControllerNet> net, const PolicyOptions& policy,
                   std::vector<uint8_t> eligible);
  std::vector<RouteDecision> plan(const std::vector<RouteInput>& steps, uint64_t seed) override;

 private:
  std::shared_ptr<const ControllerNet> net_;
  PolicyOptions policy_;
  std::vector<uint8_t> eligible_;
};

}  // namespace vkflux
