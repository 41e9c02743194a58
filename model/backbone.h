// A denoising transformer as everybody else sees it: noisy latent tokens in, a prediction for each out, in
// ordered parts, so that passes can be recorded layer by layer (sampler/replay.h) and attention replaced
// layer by layer (attention/run.h). Families implement it; nobody else names them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/attention/run.h"
#include "model/condition.h"
#include "model/trace.h"

namespace vkflux {

/// How a latent [B, channels, h, w] becomes tokens: squares of patch x patch cells.
struct LatentGeometry {
  int64_t channels = 16, patch = 2;

  int64_t token_channels() const { return channels * patch * patch; }
  /// [B, channels, h, w] -> [B, h/patch * w/patch, token_channels], in row order.
  Tensor pack(const Tensor& latent) const;
  /// The inverse for a latent of h x w cells.
  Tensor unpack(const Tensor& tokens, int64_t h, int64_t w) const;
};

class WeightStream;

/// What is known of a transformer before its weights are here, and what files made for it name.
struct BackboneLayout {
  std::string family;  // "flux1"
  std::vector<AttentionLayer> layers;
  LatentGeometry geometry;
  bool guidance = false;  // takes distilled guidance

  /// Places of the layers that strategies may replace: what routing decides about, numbered from 0 in this
  /// order.
  std::vector<int> replaceable() const;
};

/// Keys and values [B, H, n, D] of one layer.
struct KeysValues {
  Tensor k, v;
};

/// The inputs of a forward pass. Who records, compares or feeds them visits them.
struct PassInputs {
  Tensor x;         // [B, tokens, channels]: those of the drawn picture
  Tensor t;         // [B], 1 = noise
  Tensor guidance;  // [B]; for backbones that take it only
  Condition condition;
  Tensor positions;    // from Backbone::prepare()
  TokenLayout tokens;  // its counts from Backbone::prepare()
  /// By layer, of tokens that are the same in all steps and aren't among the pass's own; from
  /// Backbone::prepare(). Too large to be copied, so it isn't visited: others mean another run.
  std::shared_ptr<const std::vector<KeysValues>> kept;
  StepInfo step;
  AttentionRun* attention = nullptr;  // null: full attention, unwatched

  /// v(name, tensor, changes): every tensor; changes: from step to step of a run.
  template <class Self, class V>
  static void visit(Self& in, const V& v) {
    v("x", in.x, true);
    v("t", in.t, true);
    v("guidance", in.guidance, false);
    in.condition.visit([&](const std::string& name, auto& x) { v(name.c_str(), x, false); });
    v("positions", in.positions, false);
    v("key_mask", in.tokens.key_mask, false);
    for (auto& x : in.step.numbers) v("step numbers", x, true);
  }
};

/// A forward pass between two of its parts; families keep their streams in it.
struct Pass {
  virtual ~Pass() = default;

  AttentionPass attention;
  TokenLayout tokens;
  StepInfo step;
  Trace* trace = nullptr;
  /// Parts write their result over their input (recorded passes, whose addresses are fixed; never taped).
  bool in_place = false;
};

/// One of the parts between a pass's begin and finish.
struct PassPart {
  std::string name;  // "single_blocks.3"
  int layer = -1;    // whose attention it calls; -1: none
};

class Backbone {
 public:
  explicit Backbone(BackboneLayout layout) : layout_(std::move(layout)), attention_(layout_.layers) {}
  virtual ~Backbone() = default;
  Backbone(const Backbone&) = delete;
  Backbone& operator=(const Backbone&) = delete;

  const BackboneLayout& layout() const { return layout_; }
  AttentionBank& attention() { return attention_; }
  const AttentionBank& attention() const { return attention_; }

  /// Fills in what follows from the condition and the grids (tokens.rows, tokens.columns, tokens.references)
  /// and is the same in all steps: positions, the numbers of tokens, what is kept of tokens. ids: positions
  /// by hand, [B, tokens, axes]; empty: those of a plain picture.
  virtual void prepare(PassInputs& in, std::span<const float> ids = {}) = 0;

  /// The parts of a pass, in order: begin(), every part, finish().
  virtual const std::vector<PassPart>& parts() const = 0;
  /// Error invalid_argument names the input whose shape doesn't fit.
  std::unique_ptr<Pass> begin(const PassInputs& in, bool in_place = false, Trace* trace = nullptr);
  virtual void run(size_t part, Pass& pass) = 0;
  /// To be called before each part, outside of recordings: its weights are on the device when it returns.
  void acquire(size_t part);
  /// The weights of some parts come from elsewhere; null: all are here.
  void stream_weights(std::shared_ptr<WeightStream> weights) { weights_ = std::move(weights); }
  /// The velocity, noise - clean: [B, tokens, channels of a token of the latent].
  virtual Tensor finish(Pass& pass) = 0;

  Tensor forward(const PassInputs& in, Trace* trace = nullptr);

 protected:
  /// The image tokens as the transformer reads them: x with the condition's extra channels, then its
  /// reference tokens. Error invalid_argument where they don't fit x or the layout.
  static Tensor input(const PassInputs& in);
  /// Checks the inputs and embeds them.
  virtual std::unique_ptr<Pass> embed(const PassInputs& in, Trace* trace) = 0;

 private:
  BackboneLayout layout_;
  AttentionBank attention_;
  std::shared_ptr<WeightStream> weights_;
};

}  // namespace vkflux
