// The FLUX.1 transformer: velocity of packed latent tokens, given text, noise level and guidance. Every path
// is differentiable.
//
// Its condition: "txt" [B, T, context_in_dim] and "y" [B, vec_in_dim]. Its layers: double blocks, then single
// blocks, which are the replaceable ones.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/flux/blocks.h"
#include "model/load.h"

namespace vkflux {

class Flux1 final : public Backbone {
 public:
  explicit Flux1(const Flux1Config& config);

  const Flux1Config& config() const { return config_; }
  /// Recompute every block's inside in backward instead of keeping it.
  void set_checkpointing(bool on) { checkpointing_ = on; }

  template <class V>
  void visit(V& v) {
    v.child("img_in.", img_in_);
    v.child("time_in.", time_in_);
    v.child("vector_in.", vector_in_);
    if (config_.guidance) v.child("guidance_in.", guidance_in_);
    v.child("txt_in.", txt_in_);
    for (size_t i = 0; i < double_.size(); ++i) {
      v.child("double_blocks." + std::to_string(i) + ".", double_[i]);
    }
    for (size_t i = 0; i < single_.size(); ++i) {
      v.child("single_blocks." + std::to_string(i) + ".", single_[i]);
    }
    v.child("final_layer.", final_);
  }

  void prepare(PassInputs& in, std::span<const float> ids = {}) override;
  const std::vector<PassPart>& parts() const override { return parts_; }
  void run(size_t part, Pass& pass) override;
  Tensor finish(Pass& pass) override;

 private:
  std::unique_ptr<Pass> embed(const PassInputs& in, Trace* trace) override;
  void check(const PassInputs& in) const;
  Tensor conditioning(const PassInputs& in, Trace* trace) const;  // vec [B, H]
  Streams run_double(size_t i, const Streams& x, const BlockContext& context);
  Tensor run_single(size_t i, const Tensor& x, const BlockContext& context);

  Flux1Config config_;
  std::vector<PassPart> parts_;
  Linear img_in_, txt_in_;
  MlpEmbedder time_in_, vector_in_, guidance_in_;
  std::vector<DoubleBlock> double_;
  std::vector<SingleBlock> single_;
  FinalLayer final_;
  bool checkpointing_ = false;
  // The positions of the last plain picture, which runs and training steps share.
  std::array<int64_t, 3> grid_{};
  Tensor positions_;
};

/// What is known of a transformer of this shape.
BackboneLayout flux1_layout(const Flux1Config& config);
/// How a transformer that is trained from scratch starts: Xavier for linears, zero for biases, for all
/// modulations and for the final linear, N(0, 0.02) for the time, vector and guidance embedders, one for
/// scales.
InitRule flux1_init();
/// The layers that everything passes through stay 16-bit, modulation layers are q8_0.
const StorageRules& flux1_storage();
/// How diffusers' layout splits a parameter's rows: q, k, v and the MLP's input.
RowSplit flux1_row_split(const Flux1Config& config);

}  // namespace vkflux
