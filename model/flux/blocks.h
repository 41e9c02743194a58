// The blocks of a FLUX.1 transformer, with the letters of joint_blocks.h. Layer norms have no parameters and
// eps 1e-6; modulation rows are shift, scale, gate.
#pragma once

#include <string>
#include <vector>

#include "model/flux/config.h"
#include "model/joint_blocks.h"

namespace vkflux {

/// Text or image half of a double block.
struct DoubleStream {
  Linear mod, qkv, proj, mlp_in, mlp_out;
  QkNorm norm;

  DoubleStream() = default;
  explicit DoubleStream(const Flux1Config& c);
  template <class V>
  void visit(V& v, const std::string& prefix) {
    v.child(prefix + "mod.lin.", mod);
    v.child(prefix + "attn.qkv.", qkv);
    v.child(prefix + "attn.norm.", norm);
    v.child(prefix + "attn.proj.", proj);
    v.child(prefix + "mlp.0.", mlp_in);
    v.child(prefix + "mlp.2.", mlp_out);
  }
  /// The second half of the block: x[B, n, H], attention output o[B, n, H], mod the six vectors.
  Tensor finish(const Tensor& x, const Tensor& o, const std::vector<Tensor>& mod, bool in_place) const;
};

struct DoubleBlock {
  int64_t heads = 0;
  DoubleStream img, txt;

  DoubleBlock() = default;
  explicit DoubleBlock(const Flux1Config& c) : heads(c.heads), img(c), txt(c) {}
  template <class V>
  void visit(V& v) {
    img.visit(v, "img_");
    txt.visit(v, "txt_");
  }
  /// index: among double blocks, which are the first layers (trace names "double.N.").
  Streams operator()(const Streams& x, const BlockContext& context, int index) const;
};

struct SingleBlock {
  int64_t heads = 0, hidden = 0, mlp_hidden = 0;
  Linear mod, linear1, linear2;
  QkNorm norm;

  SingleBlock() = default;
  explicit SingleBlock(const Flux1Config& c);
  template <class V>
  void visit(V& v) {
    v.child("linear1.", linear1);
    v.child("linear2.", linear2);
    v.child("norm.", norm);
    v.child("modulation.lin.", mod);
  }
  /// x[B, N, H]; index: among single blocks (trace names "single.N"), first: layer number of single block 0.
  Tensor operator()(const Tensor& x, const BlockContext& context, int index, int first) const;
};

}  // namespace vkflux
