// The parts of a FLUX.1 transformer. B batch, N = T + I joint tokens (text first), H hidden width. Layer
// norms have no parameters and eps 1e-6; modulation rows are shift, scale, gate.
#pragma once

#include <string>
#include <vector>

#include "model/backbone.h"
#include "model/flux/config.h"
#include "model/layers.h"

namespace vkflux {

/// out_layer(SiLU(in_layer(x)))
struct MlpEmbedder {
  Linear in_layer, out_layer;

  MlpEmbedder() = default;
  MlpEmbedder(int64_t in, int64_t hidden) : in_layer{in, hidden}, out_layer{hidden, hidden} {}
  template <class V>
  void visit(V& v) {
    v.child("in_layer.", in_layer);
    v.child("out_layer.", out_layer);
  }
  Tensor operator()(const Tensor& x) const { return out_layer(in_layer(x, op::Activation::silu)); }
};

/// RMS norm scales of q and k, shared by the heads.
struct QkNorm {
  int64_t head_dim = 0;
  Tensor query = {}, key = {};

  template <class V>
  void visit(V& v) {
    v("query_norm.scale", query, Shape{head_dim});
    v("key_norm.scale", key, Shape{head_dim});
  }
};

/// `parts` vectors [B, H] from silu(vec)[B, H], in the order of the weight's rows.
std::vector<Tensor> modulation(const Linear& lin, const Tensor& silu_vec, int64_t parts);

/// A forward pass as its blocks see it.
struct BlockContext : Pass {
  Tensor silu_vec;  // [B, H]
  Tensor rope;      // [1 or B, N, D/2, 2]
};

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
  struct Streams {
    Tensor img, txt;  // [B, I, H], [B, T, H]
  };
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

struct FinalLayer {
  Linear linear, mod;

  FinalLayer() = default;
  explicit FinalLayer(const Flux1Config& c) : linear{c.hidden, c.out_channels}, mod{c.hidden, 2 * c.hidden} {}
  template <class V>
  void visit(V& v) {
    v.child("linear.", linear);
    v.child("adaLN_modulation.1.", mod);
  }
  Tensor operator()(const Tensor& x, const Tensor& silu_vec) const;  // [B, I, H] -> [B, I, out]
};

}  // namespace vkflux
