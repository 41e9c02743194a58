// AutoencoderKL of the Flux family: images [B, 3, H, W] in [-1, 1] to z [B, z, H/f, W/f] and back, with
// f = 2^(levels - 1), and between z and the latents that transformers see: scaled and shifted (FLUX.1), or
// folded into squares and standardised by channel (FLUX.2). Channels last inside. Group norms have eps 1e-6;
// the middle attention has one head. Differentiable throughout.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/activation.h"
#include "model/io/json.h"
#include "model/io/tensor_source.h"
#include "model/layers.h"
#include "model/trace.h"

namespace vkflux {

struct AutoencoderConfig {
  int64_t channels = 3, latent_channels = 16;  // of pictures, of z
  /// By level, full resolution first; empty: there is only a decoder.
  std::vector<int64_t> encoder_widths = {128, 256, 512, 512};
  std::vector<int64_t> decoder_widths = {128, 256, 512, 512};
  int64_t blocks = 2;  // per level of the encoder; the decoder has one more
  int64_t groups = 32;
  float scaling_factor = 0.3611f, shift_factor = 0.1159f;
  /// The latent's channels are squares of patch x patch cells of z, standardised by the file's statistics
  /// (bn.running_mean, bn.running_var) in place of the two factors.
  bool statistics = false;
  int64_t patch = 1;
  float statistics_eps = 1e-4f;  // added to the variances
  bool quant_conv = false,
       post_quant_conv = false;  // 1x1 convolutions on the moments, and before the decoder
  bool mid_attention = true;
  Activation activation = *Activation::named("silu");  // of the residual blocks; the ends have SiLU

  int64_t levels() const { return static_cast<int64_t>(decoder_widths.size()); }
  bool has_encoder() const { return !encoder_widths.empty(); }
  /// Pixels along a side of a cell of z, and of the latent.
  int64_t z_factor() const { return int64_t{1} << (levels() - 1); }
  int64_t factor() const { return z_factor() * patch; }
  /// Channels of the latent as a LatentCodec gives it.
  int64_t folded_channels() const { return latent_channels * patch * patch; }
  void check() const;
};

/// Levels of an autoencoder file in BFL or diffusers names (io::vae_names needs them), 1 to 8.
int64_t autoencoder_levels(const io::TensorSource& file);
/// As the published models of a family have it: "flux1", "flux2". Error invalid_argument for others.
AutoencoderConfig autoencoder_of(std::string_view family);
/// From the tensors of a checkpoint in BFL names; groups become 32, or the narrowest width when that is less.
AutoencoderConfig infer_autoencoder_config(const std::map<std::string, Shape>& shapes);
/// What shapes can't tell, from diffusers' vae/config.json: scaling_factor, shift_factor, norm_num_groups,
/// act_fn, batch_norm_eps. Error format where the rest contradicts the tensors, unsupported for values that
/// aren't implemented.
void apply_autoencoder_json(AutoencoderConfig& config, const io::Json& json);
/// The fields of such a file that are read, or that change nothing here.
const std::set<std::string_view>& autoencoder_fields();
/// diffusers' vae/config.json. sample_size: of the pictures it was trained on.
io::Json autoencoder_json(const AutoencoderConfig& config, int64_t sample_size);

/// norm, activation, convolution, twice; plus the input.
struct ResBlock {
  int64_t groups = 32;
  Activation activation = *Activation::named("silu");
  NormAffine norm1, norm2;
  Conv2d conv1, conv2, shortcut;  // shortcut: 1x1, only when the width changes

  ResBlock() = default;
  ResBlock(int64_t in, int64_t out, const AutoencoderConfig& c);
  template <class V>
  void visit(V& v) {
    v.child("norm1.", norm1);
    v.child("conv1.", conv1);
    v.child("norm2.", norm2);
    v.child("conv2.", conv2);
    if (shortcut.in != shortcut.out) v.child("nin_shortcut.", shortcut);
  }
  Tensor operator()(const Tensor& x) const;
};

/// Attention over all positions, one head as wide as the channels.
struct AttentionBlock {
  int64_t groups = 32;
  NormAffine norm;
  Linear q, k, v, proj_out;

  AttentionBlock() = default;
  AttentionBlock(int64_t width, int64_t groups);
  template <class V>
  void visit(V& visitor) {
    visitor.child("norm.", norm);
    visitor.child("q.", q);
    visitor.child("k.", k);
    visitor.child("v.", v);
    visitor.child("proj_out.", proj_out);
  }
  Tensor operator()(const Tensor& x) const;
};

struct MidBlock {
  ResBlock block_1, block_2;
  AttentionBlock attn_1;
  bool attention = true;

  MidBlock() = default;
  MidBlock(int64_t width, const AutoencoderConfig& c)
      : block_1(width, width, c),
        block_2(width, width, c),
        attn_1(width, c.groups),
        attention(c.mid_attention) {}
  template <class V>
  void visit(V& v) {
    v.child("block_1.", block_1);
    if (attention) v.child("attn_1.", attn_1);
    v.child("block_2.", block_2);
  }
  Tensor operator()(const Tensor& x, Trace* trace, const std::string& name) const;
};

/// Blocks of one resolution, and the convolution that leads to the next.
struct AutoencoderLevel {
  std::vector<ResBlock> blocks;
  Conv2d resample;
  bool has_resample = false;

  template <class V>
  void visit(V& v, const char* resample_name) {
    for (size_t i = 0; i < blocks.size(); ++i) v.child("block." + std::to_string(i) + ".", blocks[i]);
    if (has_resample) v.child(resample_name, resample);
  }
};

struct Encoder {
  AutoencoderConfig config;
  Conv2d conv_in, conv_out, quant_conv;
  struct Level : AutoencoderLevel {
    template <class V>
    void visit(V& v) {
      AutoencoderLevel::visit(v, "downsample.conv.");
    }
  };
  std::vector<Level> down;
  MidBlock mid;
  NormAffine norm_out;

  explicit Encoder(const AutoencoderConfig& c);
  template <class V>
  void visit(V& v) {
    v.child("conv_in.", conv_in);
    for (size_t i = 0; i < down.size(); ++i) v.child("down." + std::to_string(i) + ".", down[i]);
    v.child("mid.", mid);
    v.child("norm_out.", norm_out);
    v.child("conv_out.", conv_out);
    if (config.quant_conv) v.child("quant_conv.", quant_conv);
  }
  Tensor operator()(const Tensor& image, Trace* trace) const;  // -> moments [B, h, w, 2z]
};

struct Decoder {
  AutoencoderConfig config;
  Conv2d conv_in, conv_out, post_quant_conv;
  struct Level : AutoencoderLevel {
    template <class V>
    void visit(V& v) {
      AutoencoderLevel::visit(v, "upsample.conv.");
    }
  };
  std::vector<Level> up;  // level 0 is full resolution and runs last
  MidBlock mid;
  NormAffine norm_out;

  explicit Decoder(const AutoencoderConfig& c);
  template <class V>
  void visit(V& v) {
    if (config.post_quant_conv) v.child("post_quant_conv.", post_quant_conv);
    v.child("conv_in.", conv_in);
    v.child("mid.", mid);
    for (size_t i = 0; i < up.size(); ++i) v.child("up." + std::to_string(i) + ".", up[i]);
    v.child("norm_out.", norm_out);
    v.child("conv_out.", conv_out);
  }
  Tensor operator()(const Tensor& z, Trace* trace) const;  // [B, h, w, z] -> [B, H, W, 3]
};

/// Of every channel of the folded latents, measured over pictures: no parameters, they aren't trained.
struct ChannelStatistics {
  int64_t channels = 0;
  Tensor mean = {}, var = {};

  template <class V>
  void visit(V& v) {
    v("running_mean", mean, Shape{channels});
    v("running_var", var, Shape{channels});
  }
};

class AutoencoderKL {
 public:
  explicit AutoencoderKL(const AutoencoderConfig& config);

  const AutoencoderConfig& config() const { return config_; }
  /// Set once the latents' statistics are known (training).
  void set_factors(float scaling, float shift);
  /// Likewise, of a model with statistics: a value for every folded channel.
  void set_statistics(Device& device, std::span<const float> mean, std::span<const float> var);
  /// Error format names the channel whose variance can't be divided by.
  void check_statistics() const;

  template <class V>
  void visit(V& v) {
    if (encoder_) v.child("encoder.", *encoder_);
    v.child("decoder.", decoder_);
    if (config_.statistics) v.child("bn.", statistics_);
  }

  struct Posterior {
    Tensor mean, logvar;  // [B, z, h, w]
  };
  /// image [B, 3, H, W], sides multiples of z_factor(). Error unsupported without an encoder.
  Posterior encode(const Tensor& image, Trace* trace = nullptr) const;
  /// z[B, z, h, w] as encode() gives it -> [B, 3, H, W], about [-1, 1], not clamped.
  Tensor decode(const Tensor& z, Trace* trace = nullptr) const;

  /// z[B, z, h, w] -> [B, folded channels, h / patch, w / patch] (model/vae/fold.h), and back.
  Tensor fold(const Tensor& z) const;
  Tensor unfold(const Tensor& x) const;
  /// Between the autoencoder's z and the transformer's normalised latents: scaling * (z - shift), or the
  /// folded channels standardised.
  Tensor to_latent(const Tensor& z) const;
  Tensor from_latent(const Tensor& x) const;

 private:
  Tensor deviations() const;  // of the channels

  AutoencoderConfig config_;
  std::optional<Encoder> encoder_;
  Decoder decoder_;
  ChannelStatistics statistics_;
};

/// How an autoencoder that is trained from scratch starts: convolutions uniform in +-1/sqrt(fan in); the last
/// convolution of every residual block and of the attention zero; the log-variance half of the encoder's
/// output is set apart by damp_log_variance(). Statistics are those that change nothing.
InitRule autoencoder_init();
/// Scales the log-variance half of the encoder's last convolution by 0.1 and sets its bias to -5: at bias 0
/// the posterior's noise would hide everything at first. The 1x1 convolutions around the latent become the
/// identity, which mixes neither. To be called after initialise().
void damp_log_variance(AutoencoderKL& model);

}  // namespace vkflux
