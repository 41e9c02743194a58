// The T5 v1.1 encoder: RMS norms, no biases, no attention scaling, a relative position bias shared by all
// layers, gated-GELU feed-forward. Padding takes part like any token.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/component.h"
#include "model/text/clip.h"
#include "model/weight_stream.h"

namespace vkflux {

struct T5Config {
  int64_t vocab = 32128, width = 4096, layers = 24, heads = 64, head_dim = 64, mlp = 10240;
  int64_t buckets = 32, max_distance = 128;
  float eps = 1e-6f;
  bool gated = true;  // wo(act(wi_0 x) wi_1 x), else wo(act(wi x))
  Activation activation = *Activation::named("gelu_new");

  void check() const;
};

T5Config infer_t5_config(const std::map<std::string, Shape>& shapes);
/// From text_encoder_2/config.json: relative_attention_max_distance, layer_norm_epsilon, feed_forward_proj
/// ("gated-gelu", "relu", "gated-silu", ...) with the fields that say its two halves.
void apply_t5_json(T5Config& config, const io::Json& json);
io::Json t5_json(const T5Config& config);
ComponentKind t5_component();

/// Bucket of key position - query position (bidirectional).
int32_t t5_bucket(int64_t relative, int64_t buckets = 32, int64_t max_distance = 128);

struct T5Block {
  int64_t heads = 0;
  float eps = 1e-6f;
  int64_t width = 0;
  bool gated = true;
  Activation activation = *Activation::named("gelu_new");
  Tensor norm1, norm2;
  Linear q, k, v, o, wi_0, wi_1, wo;  // wi_0 alone, as "wi", where nothing is gated
  Tensor relative_bias;               // [buckets, heads], in the first block only
  Shape relative_shape;               // rank 0: none

  T5Block(const T5Config& c, bool first);
  template <class V>
  void visit(V& visitor) {
    visitor.child("layer.0.SelfAttention.q.", q);
    visitor.child("layer.0.SelfAttention.k.", k);
    visitor.child("layer.0.SelfAttention.v.", v);
    visitor.child("layer.0.SelfAttention.o.", o);
    if (relative_shape.rank()) {
      visitor("layer.0.SelfAttention.relative_attention_bias.weight", relative_bias, relative_shape);
    }
    visitor("layer.0.layer_norm.weight", norm1, Shape{width});
    visitor.child(gated ? "layer.1.DenseReluDense.wi_0." : "layer.1.DenseReluDense.wi.", wi_0);
    if (gated) visitor.child("layer.1.DenseReluDense.wi_1.", wi_1);
    visitor.child("layer.1.DenseReluDense.wo.", wo);
    visitor("layer.1.layer_norm.weight", norm2, Shape{width});
  }
  /// x[B, T, C], bias[H, T, T]
  Tensor operator()(const Tensor& x, const Tensor& bias) const;
};

class T5Encoder {
 public:
  explicit T5Encoder(const T5Config& config);
  const T5Config& config() const { return config_; }

  template <class V>
  void visit(V& v) {
    v("shared.weight", shared_, Shape{config_.vocab, config_.width});
    for (size_t i = 0; i < blocks_.size(); ++i)
      v.child("encoder.block." + std::to_string(i) + ".", blocks_[i]);
    v("encoder.final_layer_norm.weight", final_norm_, Shape{config_.width});
  }

  /// Prefixes of the blocks' parameters, in order.
  std::vector<std::string> layer_names() const;
  /// The weights of some blocks come from elsewhere; null: all are here.
  void stream_weights(std::shared_ptr<WeightStream> weights) { weights_ = std::move(weights); }
  /// -> [B, T, C]
  Tensor forward(const TokenIds& ids, Trace* trace = nullptr) const;

 private:
  Tensor position_bias(int64_t length) const;  // [H, T, T]
  T5Config config_;
  Tensor shared_, final_norm_;
  std::vector<T5Block> blocks_;
  std::shared_ptr<WeightStream> weights_;
};

/// The tables stay 16-bit.
const StorageRules& t5_storage();
/// N(0, 1) for the embedding, N(0, 1/(width head_dim)) for q, N(0, 1/fan in) for the other linears,
/// N(0, 1/width) for the position bias.
InitRule t5_init(const T5Config& config);

}  // namespace vkflux
