// Decoder-only language models as text encoders: Qwen3 and Mistral. Causal attention in which several query
// heads share a key/value head, rotated by position, RMS norms, a gated feed-forward. What is wanted of them
// are the hidden states of some layers; neither later layers nor the output head are ever made.
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

struct DecoderConfig {
  int64_t vocab = 151936, width = 2560, layers = 36, heads = 32, kv_heads = 8, head_dim = 128, mlp = 9728;
  float eps = 1e-6f;
  double theta = 1e6;  // pair c turns by position / rope_factor theta^(-2 c / head_dim)
  double rope_factor = 1;
  bool qk_norm = true;          // q and k are RMS-normalised by head: Qwen3
  bool attention_bias = false;  // of q, k, v and o
  bool final_norm = true;       // false: these are the first layers of a larger model
  bool tied = true;             // the output head, which isn't made, is the embedding
  Activation activation = *Activation::named("silu");
  int64_t window = 0;         // keys that a query of a sliding layer sees, itself the last; 0: all before it
  std::vector<bool> sliding;  // by layer; empty: every one where there is a window

  void check() const;
  bool slides(int64_t layer) const {
    return window > 0 && (sliding.empty() || sliding[static_cast<size_t>(layer)]);
  }
};

/// The published models.
DecoderConfig qwen3_4b_config();
DecoderConfig qwen3_8b_config();
DecoderConfig mistral_small_config();

/// From tensors. Heads, eps and theta are those of the published models (Qwen3 where q and k are normalised,
/// else Mistral Small) until a config says otherwise.
DecoderConfig infer_decoder_config(const std::map<std::string, Shape>& shapes);
/// From text_encoder/config.json of Qwen3ForCausalLM, MistralForCausalLM, Mistral3ForConditionalGeneration
/// (its text_config) and of the models inside them. Error format where it contradicts the tensors,
/// unsupported for what isn't computed.
void apply_decoder_json(DecoderConfig& config, const io::Json& json);
/// The same from a GGUF file's metadata.
void apply_decoder_gguf(DecoderConfig& config, const io::Json& values);
io::Json decoder_json(const DecoderConfig& config);
/// All of it for a file; `json`: its config.json, or no object. Error format when it is no such model.
DecoderConfig decoder_config(const io::TensorSource& file, const io::Json& json);

/// io::decoder_names() of a file whose embedding isn't loaded (DecoderLm::leave_embedding).
io::NameTable names_without_embedding(const io::TensorSource& file, int64_t layers = -1);

ComponentKind qwen3_component();
ComponentKind mistral_component();

/// How many layers the hidden states of these numbers take: the largest. Numbers below 0 count from the last
/// state, as Python's do; they become what they stand for. Error invalid_argument outside the model, or for
/// an empty list.
int64_t layers_for_states(std::vector<int64_t>& states, const DecoderConfig& config);

/// Token ids, rows of one length, and which of them are there.
struct DecoderTokens {
  TokenIds ids;                            // [batch][tokens]
  std::vector<std::vector<uint8_t>> mask;  // the same, 1 or 0 for padding; empty: all are there
  int64_t first_position = 0;              // of the first column
};

struct DecoderLayer {
  DecoderConfig config;
  Tensor norm1, norm2, q_norm, k_norm;
  Linear q, k, v, o, gate, up, down;

  explicit DecoderLayer(const DecoderConfig& c);
  template <class V>
  void visit(V& visitor) {
    visitor("input_layernorm.weight", norm1, Shape{config.width});
    visitor.child("self_attn.q_proj.", q);
    visitor.child("self_attn.k_proj.", k);
    visitor.child("self_attn.v_proj.", v);
    visitor.child("self_attn.o_proj.", o);
    if (config.qk_norm) {
      visitor("self_attn.q_norm.weight", q_norm, Shape{config.head_dim});
      visitor("self_attn.k_norm.weight", k_norm, Shape{config.head_dim});
    }
    visitor("post_attention_layernorm.weight", norm2, Shape{config.width});
    visitor.child("mlp.gate_proj.", gate);
    visitor.child("mlp.up_proj.", up);
    visitor.child("mlp.down_proj.", down);
  }
  /// x[B, T, C], rope[1, T, D/2, 2]. `options`: the mask.
  Tensor operator()(const Tensor& x, const Tensor& rope, const op::AttentionOptions& options) const;
};

class DecoderLm {
 public:
  /// The first `layers` layers; -1: all. The final norm is there only with all of them.
  explicit DecoderLm(const DecoderConfig& config, int64_t layers = -1);
  const DecoderConfig& config() const { return config_; }
  /// Prefixes of the layers' parameters without the last dot: what load_streamed() takes.
  std::vector<std::string> layer_names() const;

  template <class V>
  void visit(V& v) {
    if (!device_) v("model.embed_tokens.weight", table_, Shape{config_.vocab, config_.width});
    for (size_t i = 0; i < layers_.size(); ++i)
      v.child("model.layers." + std::to_string(i) + ".", layers_[i]);
    if (normed_) v("model.norm.weight", final_norm_, Shape{config_.width});
  }

  /// The weights of some layers come from elsewhere; null: all are here.
  void stream_weights(std::shared_ptr<WeightStream> weights) { weights_ = std::move(weights); }
  /// The embedding stays in its file, of which the rows of a text are read: it is no parameter any more, and
  /// takes no memory of the device. `file` has it (decoder_names()), or is null where the model is only
  /// rehearsed (vk/rehearsal.h); `device` is the weights'.
  void leave_embedding(std::shared_ptr<const io::NamedTensors> file, Device& device) {
    rows_ = std::move(file), device_ = &device;
  }
  /// Hidden states [B, T, C] in the order of their numbers: 0 the embedding, k what leaves layer k, the last
  /// of the whole model after its final norm. A token that sees nothing but padding gets no attention: its
  /// states are the residual stream's own. Differentiable. Error invalid_argument for states beyond the
  /// layers that are here.
  std::vector<Tensor> forward(const DecoderTokens& tokens, const std::vector<int64_t>& states,
                              Trace* trace = nullptr) const;

 private:
  Tensor embedded(const TokenIds& ids) const;  // [B, T, C]

  DecoderConfig config_;
  Tensor table_, final_norm_;
  std::vector<DecoderLayer> layers_;
  bool normed_ = false;
  std::shared_ptr<WeightStream> weights_;
  std::shared_ptr<const io::NamedTensors> rows_;
  Device* device_ = nullptr;
};

/// The embedding stays 16-bit.
const StorageRules& decoder_storage();
/// N(0, 1/width) for the embedding, N(0, 1/fan in) for linears; those that end a residual branch with
/// a variance smaller by 2 layers.
InitRule decoder_init(const DecoderConfig& config);

}  // namespace vkflux
