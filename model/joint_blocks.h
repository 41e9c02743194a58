// What transformers of double and single blocks have in common: text and image tokens pass the double blocks
// as two streams that attend to each other, then the single blocks as one. B batch, T text tokens, I image
// tokens, N = T + I joint tokens (text first), H hidden width.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/backbone.h"
#include "model/layers.h"

namespace vkflux {

/// out_layer(SiLU(in_layer(x)))
struct MlpEmbedder {
  Linear in_layer, out_layer;

  MlpEmbedder() = default;
  MlpEmbedder(int64_t in, int64_t hidden, bool bias = true)
      : in_layer{in, hidden, bias}, out_layer{hidden, hidden, bias} {}
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

/// The `parts` vectors [B, H] that lie behind one another in modulations[B, parts * H].
std::vector<Tensor> modulation(const Tensor& modulations, int64_t parts);
/// The same of lin(silu_vec[B, H]), in the order of the weight's rows.
std::vector<Tensor> modulation(const Linear& lin, const Tensor& silu_vec, int64_t parts);

/// The tokens between two double blocks.
struct Streams {
  Tensor img, txt;  // [B, I, H], [B, T, H]
};

/// A forward pass as its blocks see it.
struct BlockContext : Pass {
  Tensor silu_vec;  // [B, H]
  Tensor rope;      // [1 or B, N, D/2, 2]
  /// By layer, keys and values that every query sees beside the tokens' own; null: none.
  const std::vector<KeysValues>* kept = nullptr;
  /// Gets every layer's own, in order.
  std::vector<KeysValues>* keeping = nullptr;
};

/// A pass and its tokens between its parts.
struct JointPass : BlockContext {
  Streams streams;  // through the double blocks
  Tensor joined;    // [B, N, H] through the single blocks; undefined before join()

  void join();
  /// The image tokens that are predicted, dense: [B, n, H].
  Tensor drawn() const;
};

/// Attention of a layer (its place among the backbone's) over joint tokens, by whoever serves it. weight:
/// that of the layer's q, k and v, whose type says whether they may be rounded. trace_name: of the layer.
Tensor attend(const op::Qkv& joint, const Tensor& weight, const BlockContext& context, int layer,
              const std::string& trace_name);
/// The streams' parts of attention's answer o[B, heads, N, D], their heads merged; text: T.
Streams split_streams(const Tensor& o, int64_t text);

/// Layer norm (eps) without parameters, modulated by shift and scale, then a linear layer.
struct FinalLayer {
  Linear linear, mod;
  float eps = 1e-6f;

  FinalLayer() = default;
  FinalLayer(int64_t hidden, int64_t out, bool bias = true, float epsilon = 1e-6f)
      : linear{hidden, out, bias}, mod{hidden, 2 * hidden, bias}, eps(epsilon) {}
  template <class V>
  void visit(V& v) {
    v.child("linear.", linear);
    v.child("adaLN_modulation.1.", mod);
  }
  Tensor operator()(const Tensor& x, const Tensor& silu_vec) const;  // [B, I, H] -> [B, I, out]
};

/// Layers "double_blocks.N", then "single_blocks.N", the replaceable ones.
std::vector<AttentionLayer> joint_layers(int64_t depth, int64_t depth_single, int64_t heads,
                                         int64_t head_dim);
/// A part for each layer, and "join" in front of the first single block.
std::vector<PassPart> joint_parts(const BackboneLayout& layout);

/// Error invalid_argument where an input of the model `what` ("FLUX.1") is missing or has another shape.
void expect_input(std::string_view what, const char* name, const Tensor& x, const Shape& want);

// Configs from the shapes of a checkpoint in BFL names; what: "FLUX.1".
/// Error format where the tensor is missing, of another rank, or empty.
const Shape& need_shape(std::string_view what, const std::map<std::string, Shape>& shapes,
                        const std::string& name, int rank);
/// The number of blocks behind `prefix` ("double_blocks."). Error format where they aren't counted from 0
/// without gaps.
int64_t count_blocks(const std::map<std::string, Shape>& shapes, std::string_view prefix);

}  // namespace vkflux
