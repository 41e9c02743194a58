// What every strategy of attention sees: a layer, one call of it, and what is known about the step.
// Strategies replace full attention layer by layer and step by step (run.h decides), and taps watch, without
// the backbone knowing.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "autograd/run.h"
#include "autograd/tensor.h"
#include "model/attention/kinds.h"

namespace vkflux {

/// One attention of a backbone.
struct AttentionLayer {
  std::string name;  // as in checkpoints: "single_blocks.7"
  int64_t heads = 0, head_dim = 0;
  bool replaceable = false;  // a strategy may stand in for full attention here

  bool operator==(const AttentionLayer&) const = default;
};

/// The tokens of a reference picture: a grid in row order, and where it lies beside the drawn picture's.
struct ReferenceGrid {
  int64_t rows = 0, columns = 0;
  int64_t index = 1, row = 0, column = 0;  // of its first token

  int64_t tokens() const { return rows * columns; }
};

/// Text (conditioning) tokens come first, then image tokens in row order: those of the drawn picture, then
/// those of reference pictures, which are read and not predicted.
struct TokenLayout {
  int64_t text = 0, image = 0;
  int64_t rows = 0, columns = 0;  // the drawn tokens' grid; 0 when it isn't one
  std::vector<ReferenceGrid> references = {};
  bool wrap_rows = false, wrap_columns = false;  // the last row or column is the first one's neighbour
  Tensor key_mask;                               // u8 [B, text + image], 1 = keep; undefined: all
  /// Tokens that aren't here and that every query sees: their keys and values stand behind those of the
  /// others.
  int64_t kept = 0;

  int64_t reference_tokens() const {
    int64_t n = 0;
    for (const ReferenceGrid& r : references) n += r.tokens();
    return n;
  }
  /// Image tokens that are predicted.
  int64_t drawn() const { return image - reference_tokens(); }
};

/// Where in a denoising run a forward pass is; all known before it starts.
struct StepInfo {
  int index = 0, count = 1;
  float sigma = 0, guidance = 0, cfg_scale = 1;
  int64_t width = 0, height = 0;  // of the image, in pixels
  /// By kind: Attention::step_numbers() on the device, [1, n]. Undefined: who needs them makes them.
  std::array<Tensor, kAttentionKinds.size()> numbers = {};
};

struct AttentionCall {
  Tensor q, k, v;  // [B, H, N, D] after QK norm and RoPE; of k and v N + tokens.kept
  const TokenLayout& tokens;
  int layer;  // its place among the backbone's layers
  const StepInfo& step;
  bool f16 = false;  // full attention may round its factors: the layer's weights are 16-bit or packed
};

struct AttentionShape {
  int64_t batch, heads, text, image, head_dim;
  int64_t kept = 0;  // see TokenLayout
};

/// A strategy: [B, H, N, D] from a call.
class Attention {
 public:
  virtual ~Attention() = default;
  virtual Tensor forward(const AttentionCall& call) = 0;
  /// Why it must not serve such a call now, for people ("not ready: ..."); empty: it may.
  virtual std::string refusal(const AttentionShape& /*shape*/) const { return {}; }
  /// True when one recording of forward() serves every step: nothing but tensors depends on the step, nothing
  /// waits for the device.
  virtual bool recordable(const TokenLayout& /*tokens*/, const StepInfo& /*step*/) const { return false; }
  /// Numbers that forward() reads on the device and that change from step to step; at most 64, the same for
  /// all strategies of a kind.
  virtual std::vector<float> step_numbers(const StepInfo& /*step*/) const { return {}; }
  /// Flops and bytes of one forward pass.
  virtual Cost cost(const AttentionShape& shape) const = 0;
};

/// softmax(q k^T / sqrt(D)) v
class FullAttention final : public Attention {
 public:
  Tensor forward(const AttentionCall& call) override;
  bool recordable(const TokenLayout&, const StepInfo&) const override { return true; }
  Cost cost(const AttentionShape& shape) const override;
};

/// Who answers one call of a layer.
struct Served {
  AttentionKind asked = AttentionKind::full, kind = AttentionKind::full;
  std::string refusal;               // why not as the plan asked; empty: as it asked
  double flops = 0, full_flops = 0;  // of this answer, and of full attention's
};

/// Watches calls and their results; must not change them.
class AttentionTap {
 public:
  virtual ~AttentionTap() = default;
  /// Before the call is served.
  virtual void begin(const AttentionCall& /*call*/) {}
  /// True: full attention's answer is computed even where another kind serves, and taught() gets it first,
  /// once a step even when the step has to be made again.
  virtual bool wants_full(const AttentionCall& /*call*/) { return false; }
  virtual void taught(const AttentionCall& /*call*/, const Tensor& /*full*/) {}
  virtual void observe(const AttentionCall& /*call*/, const Served& /*served*/, const Tensor& /*out*/) {}
};

}  // namespace vkflux
