// The FLUX.2 transformer: velocity (noise - clean) of latent tokens, given text, noise level and, where it
// has an embedder for it, guidance. Every path is differentiable.
//
// Its condition: "txt" [B, T, context_in_dim]. Its layers: double blocks, then single blocks, which are the
// replaceable ones. A token is one cell of the folded latent.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "model/flux2/blocks.h"
#include "model/load.h"

namespace vkflux {

class Flux2 final : public Backbone {
 public:
  explicit Flux2(const Flux2Config& config);

  const Flux2Config& config() const { return config_; }
  /// Recompute every block's inside in backward instead of keeping it.
  void set_checkpointing(bool on) { checkpointing_ = on; }
  /// References are read once for all steps, by themselves and as at noise level 0; what the steps see of
  /// them is every layer's keys and values. That is what klein-kv was trained for, in place of reading them
  /// anew in every step; others draw differently with it.
  void set_keep_references(bool on) { keep_references_ = on; }

  template <class V>
  void visit(V& v) {
    v.child("img_in.", img_in_);
    v.child("time_in.", time_in_);
    if (config_.guidance) v.child("guidance_in.", guidance_in_);
    v.child("txt_in.", txt_in_);
    v.child("double_stream_modulation_img.lin.", mod_img_);
    v.child("double_stream_modulation_txt.lin.", mod_txt_);
    v.child("single_stream_modulation.lin.", mod_single_);
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
  struct State;
  std::unique_ptr<Pass> embed(const PassInputs& in, Trace* trace) override;
  void check(const PassInputs& in) const;
  Tensor conditioning(const PassInputs& in, Trace* trace) const;  // vec [B, H]
  /// What blocks are modulated by at noise level in.t.
  void modulate(State& pass, const PassInputs& in, Trace* trace) const;
  /// Keys and values of the references at these positions, by layer.
  std::vector<KeysValues> read_references(const PassInputs& in, const Tensor& positions);
  Streams run_double(size_t i, const State& pass);
  Tensor run_single(size_t i, const State& pass);
  Tensor rope(Device& device, std::vector<float> ids, int64_t batch,
              const std::vector<float>& periods = {}) const;

  Flux2Config config_;
  std::vector<PassPart> parts_;
  Linear img_in_, txt_in_, mod_img_, mod_txt_, mod_single_;
  MlpEmbedder time_in_, guidance_in_;
  std::vector<Flux2DoubleBlock> double_;
  std::vector<Flux2SingleBlock> single_;
  FinalLayer final_;
  bool checkpointing_ = false, keep_references_ = false;
  // The positions of the last plain picture, which runs and training steps share.
  std::array<int64_t, 3> grid_{};
  Tensor positions_;
};

/// What is known of a transformer of this shape.
BackboneLayout flux2_layout(const Flux2Config& config);
/// How a transformer that is trained from scratch starts: Xavier for linears, zero for all modulations and
/// for the final linear, N(0, 0.02) for the time and guidance embedders, one for scales.
InitRule flux2_init();
/// The layers that everything passes through stay 16-bit, the shared modulation layers are q8_0.
const StorageRules& flux2_storage();

}  // namespace vkflux
