// The seam through which every joint attention of a transformer goes: strategies can replace full attention
// layer by layer and step by step, and taps can watch it, without the transformer knowing.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
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
  /// hkr_scalars() of sigma and cfg_scale on the device, [1, 64]; undefined: who needs them makes them.
  Tensor scalars = {};
};

/// Layers are counted over the whole transformer: double blocks first, then single blocks.
struct AttentionCall {
  Tensor q, k, v;  // [B, H, N, D] after QK norm and RoPE
  const TokenLayout& tokens;
  int layer;
  const StepInfo& step;
  bool f16 = false;  // full attention may round its factors: the layer's weights are 16-bit or packed
};

struct AttentionShape {
  int64_t batch, heads, text, image, head_dim;
};
AttentionShape shape_of(const AttentionCall& call);

/// A strategy: [B, H, N, D] from a call.
class Attention {
 public:
  virtual ~Attention() = default;
  virtual const char* name() const = 0;
  virtual Tensor forward(const AttentionCall& call) = 0;
  /// Why it must not serve this call now, for people ("not ready: ..."); empty: it may.
  virtual std::string refusal(const AttentionCall& /*call*/) const { return {}; }
  /// True when one recording of forward() serves every step: nothing but tensors depends on the step, nothing
  /// waits for the device.
  virtual bool recordable(const AttentionCall& /*call*/) const { return false; }
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
  bool recordable(const AttentionCall& /*call*/) const override { return true; }
  uint64_t scratch(const AttentionShape& shape) const override;
  Cost cost(const AttentionShape& shape) const override;
};

/// Watches calls and their results; must not change them.
class AttentionTap {
 public:
  virtual ~AttentionTap() = default;
  /// Before the call is served.
  virtual void begin(const AttentionCall& /*call*/) {}
  virtual void observe(const AttentionCall& call, const Tensor& out) = 0;
};

/// The kinds of attention a plan can ask for. Every layer has `full`.
enum class AttentionKind : uint8_t { full, hkr };
const char* name(AttentionKind kind);

/// What each layer should use in one step; layers past its end use full attention.
using RoutePlan = std::vector<AttentionKind>;

/// What a layer used in the last forward pass, and why not what the plan asked for.
struct ServedLayer {
  AttentionKind kind = AttentionKind::full;
  std::string refusal;  // empty: as planned
};

/// The strategies of all layers by (layer, kind), the plan of the coming passes, and the taps.
class AttentionBank {
 public:
  /// strategy null: takes it away. Kind full cannot be replaced.
  void set(int layer, AttentionKind kind, std::shared_ptr<Attention> strategy);
  /// Null when the layer has none of this kind.
  Attention* find(int layer, AttentionKind kind);
  /// What the coming forward passes ask for; empty: full attention everywhere.
  void route(RoutePlan plan) { plan_ = std::move(plan); }
  const RoutePlan& plan() const { return plan_; }

  Tensor forward(const AttentionCall& call);
  /// Decides as forward() does, without computing anything; only the shapes of q, k and v count. Whoever then
  /// runs a recording of that kind instead of forward() says so with replayed().
  AttentionKind planned(const AttentionCall& call);
  void replayed(int layer);
  /// Makes what settle() reads now, instead of with a student's first call.
  void prepare(Device& device) { check_slot(device, 0); }
  /// Changes with set(): recordings made before are of other strategies.
  uint64_t version() const { return version_; }
  bool tapped() const { return !taps_.empty(); }
  /// After the passes of a step: waits for the students' outputs and bars every layer whose output wasn't
  /// finite (it uses full attention from now on, until pardon()). False: some were barred just now, so the
  /// step's result must be thrown away and made again. Returns at once when no student was used.
  bool settle();
  void pardon() { barred_.clear(); }
  /// By layer, of the last forward pass.
  const std::vector<ServedLayer>& served() const { return served_; }

  /// Taps are not owned; they run in the order they were added.
  void add_tap(AttentionTap* tap);
  void remove_tap(AttentionTap* tap);

 private:
  /// The one place that decides who serves a call. Fails closed: full attention unless everything is right.
  Attention& admit(const AttentionCall& call);

  FullAttention full_;
  std::map<std::pair<int, AttentionKind>, std::shared_ptr<Attention>> strategies_;
  RoutePlan plan_;
  std::vector<ServedLayer> served_;
  std::map<int, std::string> barred_;  // layer -> why
  Tensor check_slot(Device& device, int layer);

  uint64_t version_ = 0;
  Tensor
      checks_;  // [layers, slot]: sums of the students' outputs since settle(), in each row's first element
  std::vector<int> unsettled_;  // layers that students served since then
  std::vector<AttentionTap*> taps_;
};

}  // namespace vkflux
