// The FLUX.1 transformer: velocity of packed latent tokens, given text, noise level and guidance. Every path
// is differentiable.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/flux/blocks.h"
#include "model/load.h"

namespace vkflux {

struct Flux1Inputs {
  Tensor img;          // [B, I, in_channels]
  Tensor txt;          // [B, T, context_in_dim]
  Tensor y;            // [B, vec_in_dim]
  Tensor t;            // [B], 1 = noise
  Tensor guidance;     // [B]; for models with a guidance embedder only
  Tensor rope;         // [1 or B, T + I, D/2, 2] from rope_table()
  TokenLayout tokens;  // text and image counts are filled in by forward()
  StepInfo step;
};

class Flux1 {
 public:
  explicit Flux1(const Flux1Config& config);

  const Flux1Config& config() const { return config_; }
  AttentionBank& attention() { return attention_; }
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

  /// A forward pass between two of its parts.
  struct Pass {
    BlockContext context;
    DoubleBlock::Streams streams;  // through the double blocks
    Tensor x;                      // [B, T + I, H] through the single blocks
  };
  /// The parts of forward(), in order: begin, every layer, join before the first single block, finish.
  Pass begin(const Flux1Inputs& in, Trace* trace = nullptr);
  void join(Pass& pass) const;
  void layer(int index, Pass& pass);
  Tensor finish(const Pass& pass) const;
  int double_layers() const { return static_cast<int>(double_.size()); }
  int layers() const { return static_cast<int>(double_.size() + single_.size()); }

  /// [B, I, out_channels]. Error invalid_argument names the input whose shape doesn't fit.
  Tensor forward(const Flux1Inputs& in, Trace* trace = nullptr);

 private:
  void check(const Flux1Inputs& in) const;
  Tensor conditioning(const Flux1Inputs& in, Trace* trace) const;  // vec [B, H]
  DoubleBlock::Streams run_double(size_t i, const DoubleBlock::Streams& x, const BlockContext& context);
  Tensor run_single(size_t i, const Tensor& x, const BlockContext& context);

  Flux1Config config_;
  Linear img_in_, txt_in_;
  MlpEmbedder time_in_, vector_in_, guidance_in_;
  std::vector<DoubleBlock> double_;
  std::vector<SingleBlock> single_;
  FinalLayer final_;
  AttentionBank attention_;
  bool checkpointing_ = false;
};

/// How a transformer that is trained from scratch starts: Xavier for linears, zero for biases, for all
/// modulations and for the final linear, N(0, 0.02) for the time, vector and guidance embedders, one for
/// scales.
InitRule flux1_init();
/// The layers that everything passes through stay 16-bit, modulation layers are q8_0.
const StorageRules& flux1_storage();
/// How diffusers' layout splits a parameter's rows: q, k, v and the MLP's input.
RowSplit flux1_row_split(const Flux1Config& config);

}  // namespace vkflux
