// The blocks of a FLUX.2 transformer, with the letters of joint_blocks.h. There are no biases. All double
// blocks share one modulation for each stream, all single blocks another, which a pass computes once. M the
// width of the MLPs, whose first half of 2M rows is the gate: SiLU(u) * v.
#pragma once

#include <string>
#include <vector>

#include "model/flux2/config.h"
#include "model/joint_blocks.h"

namespace vkflux {

/// Text or image half of a double block.
struct Flux2Stream {
  Linear qkv, proj, mlp_in, mlp_out;
  QkNorm norm;
  float eps = 0;

  Flux2Stream() = default;
  explicit Flux2Stream(const Flux2Config& c);
  template <class V>
  void visit(V& v, const std::string& prefix) {
    v.child(prefix + "attn.qkv.", qkv);
    v.child(prefix + "attn.norm.", norm);
    v.child(prefix + "attn.proj.", proj);
    v.child(prefix + "mlp.0.", mlp_in);
    v.child(prefix + "mlp.2.", mlp_out);
  }
  /// The second half of the block: x[B, n, H], attention output o[B, n, H], m the six vectors.
  Tensor finish(const Tensor& x, const Tensor& o, const std::vector<Tensor>& m, bool in_place) const;
};

struct Flux2DoubleBlock {
  int64_t heads = 0;
  Flux2Stream img, txt;

  Flux2DoubleBlock() = default;
  explicit Flux2DoubleBlock(const Flux2Config& c) : heads(c.heads), img(c), txt(c) {}
  template <class V>
  void visit(V& v) {
    img.visit(v, "img_");
    txt.visit(v, "txt_");
  }
  /// index: among double blocks, which are the first layers (trace names "double.N.").
  Streams operator()(const Streams& x, const BlockContext& context, const std::vector<Tensor>& mod_img,
                     const std::vector<Tensor>& mod_txt, int index) const;
  /// Image tokens without a text.
  Tensor alone(const Tensor& x, const BlockContext& context, const std::vector<Tensor>& mod_img,
               int index) const;
};

struct Flux2SingleBlock {
  int64_t heads = 0, hidden = 0, mlp_hidden = 0;
  Linear linear1, linear2;
  QkNorm norm;
  float eps = 0;

  Flux2SingleBlock() = default;
  explicit Flux2SingleBlock(const Flux2Config& c);
  template <class V>
  void visit(V& v) {
    v.child("linear1.", linear1);
    v.child("linear2.", linear2);
    v.child("norm.", norm);
  }
  /// x[B, N, H]; index: among single blocks (trace names "single.N"), first: layer number of single block 0.
  Tensor operator()(const Tensor& x, const BlockContext& context, const std::vector<Tensor>& mod, int index,
                    int first) const;
};

}  // namespace vkflux
