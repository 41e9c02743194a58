// The seam through which every joint attention of a transformer goes: strategies can replace full attention
// layer by layer, and taps can watch it, without the transformer knowing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "autograd/run.h"
#include "autograd/tensor.h"

namespace vkflux {

/// Text tokens come first, then image tokens in row order.
struct TokenLayout {
  int64_t text = 0, image = 0;
  int64_t rows = 0, columns = 0;  // the image tokens' grid; 0 when it isn't one
  Tensor key_mask;                // u8 [B, text + image], 1 = keep; undefined: all
};

/// Where in a denoising run a forward pass is; all known before it starts.
struct StepInfo {
  int index = 0, count = 1;
  float sigma = 0, guidance = 0, cfg_scale = 1;
  int64_t width = 0, height = 0;  // of the image, in pixels
};

/// Layers are counted over the whole transformer: double blocks first, then single blocks.
struct AttentionCall {
  Tensor q, k, v;  // [B, H, N, D] after QK norm and RoPE
  const TokenLayout& tokens;
  int layer;
  const StepInfo& step;
};

struct AttentionShape {
  int64_t batch, heads, text, image, head_dim;
};

/// A strategy: [B, H, N, D] from a call.
class Attention {
 public:
  virtual ~Attention() = default;
  virtual const char* name() const = 0;
  virtual Tensor forward(const AttentionCall& call) = 0;
  /// Bytes of device memory it needs besides q, k, v and the result.
  virtual uint64_t scratch(const AttentionShape& shape) const = 0;
  /// Flops and bytes of one forward pass.
  virtual Cost cost(const AttentionShape& shape) const = 0;
};

/// softmax(q k^T / sqrt(D)) v
class FullAttention final : public Attention {
 public:
  const char* name() const override { return "full"; }
  Tensor forward(const AttentionCall& call) override;
  uint64_t scratch(const AttentionShape& shape) const override;
  Cost cost(const AttentionShape& shape) const override;
};

/// Watches calls and their results; must not change them.
class AttentionTap {
 public:
  virtual ~AttentionTap() = default;
  virtual void observe(const AttentionCall& call, const Tensor& out) = 0;
};

/// Chooses the strategy of each layer (full attention unless set) and feeds the taps.
class AttentionBank {
 public:
  /// strategy null: full attention again.
  void set(int layer, std::shared_ptr<Attention> strategy);
  Attention& at(int layer);
  /// Taps are not owned; they run in the order they were added.
  void add_tap(AttentionTap* tap);
  void remove_tap(AttentionTap* tap);
  Tensor forward(const AttentionCall& call);

 private:
  FullAttention full_;
  std::vector<std::shared_ptr<Attention>> strategies_;  // by layer; null is full
  std::vector<AttentionTap*> taps_;
};

}  // namespace vkflux
