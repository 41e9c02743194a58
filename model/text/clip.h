// The CLIP text model: a causal transformer whose pooled output is the normed state at the first
// end-of-text token. No text projection, no padding mask (pads come after the end and are never seen).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/activation.h"
#include "model/component.h"
#include "model/io/json.h"
#include "model/layers.h"
#include "model/trace.h"
#include "model/weight_storage.h"

namespace vkflux {

using TokenIds = std::vector<std::vector<int32_t>>;  // [batch][tokens], rows of one length
/// Ids on the device, i32 [B, T]. Error invalid_argument when rows differ in length or an id is outside
/// [0, vocab).
Tensor upload_ids(Device& device, const TokenIds& ids, int64_t vocab);

struct ClipTextConfig {
  int64_t vocab = 49408, positions = 77, width = 768, layers = 12, heads = 12, mlp = 3072;
  Activation activation = *Activation::named("quick_gelu");
  float eps = 1e-5f;
  int32_t eos = 49407;

  void check() const;
};

/// From tensors (heads: width / 64 until config.json says otherwise; end id: the last of the vocabulary).
ClipTextConfig infer_clip_config(const std::map<std::string, Shape>& shapes);
/// From text_encoder/config.json: num_attention_heads, hidden_act, layer_norm_eps, eos_token_id. The value 2
/// that old configs state for eos_token_id stands for the last id of the vocabulary.
void apply_clip_json(ClipTextConfig& config, const io::Json& json);
io::Json clip_json(const ClipTextConfig& config);
ComponentKind clip_component();

struct ClipLayer {
  int64_t heads = 0;
  Activation activation = *Activation::named("quick_gelu");
  float eps = 1e-5f;
  NormAffine norm1, norm2;
  Linear q, k, v, out, fc1, fc2;

  explicit ClipLayer(const ClipTextConfig& c);
  template <class V>
  void visit(V& visitor) {
    visitor.child("self_attn.q_proj.", q);
    visitor.child("self_attn.k_proj.", k);
    visitor.child("self_attn.v_proj.", v);
    visitor.child("self_attn.out_proj.", out);
    visitor.child("layer_norm1.", norm1);
    visitor.child("mlp.fc1.", fc1);
    visitor.child("mlp.fc2.", fc2);
    visitor.child("layer_norm2.", norm2);
  }
  Tensor operator()(const Tensor& x) const;  // [B, T, C]
};

class ClipText {
 public:
  explicit ClipText(const ClipTextConfig& config);
  const ClipTextConfig& config() const { return config_; }

  template <class V>
  void visit(V& v) {
    v("text_model.embeddings.token_embedding.weight", tokens_, Shape{config_.vocab, config_.width});
    v("text_model.embeddings.position_embedding.weight", positions_, Shape{config_.positions, config_.width});
    for (size_t i = 0; i < layers_.size(); ++i) {
      v.child("text_model.encoder.layers." + std::to_string(i) + ".", layers_[i]);
    }
    v.child("text_model.final_layer_norm.", final_norm_);
  }

  struct Output {
    Tensor last_hidden_state;  // [B, T, C]
    Tensor pooled;             // [B, C]
  };
  /// Error invalid_argument when a row has no end token or more tokens than there are positions.
  Output forward(const TokenIds& ids, Trace* trace = nullptr) const;

 private:
  ClipTextConfig config_;
  Tensor tokens_, positions_;
  std::vector<ClipLayer> layers_;
  NormAffine final_norm_;
};

/// All of CLIP stays 16-bit.
const StorageRules& clip_storage();
/// Xavier for linears, N(0, 0.1) for token and N(0, 0.02) for position embeddings.
InitRule clip_init();

}  // namespace vkflux
