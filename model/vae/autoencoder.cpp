#include "model/vae/autoencoder.h"

#include <fmt/format.h>

#include <cmath>

#include "model/vae/fold.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr float kEps = 1e-6f;

Tensor norm_silu(const Tensor& x, const NormAffine& n, int64_t groups) {
  return op::group_norm(x, n.weight, n.bias, static_cast<int>(groups), kEps, true);
}

Tensor norm_act(const Tensor& x, const NormAffine& n, int64_t groups, const Activation& act) {
  if (act.fused() == op::Activation::silu) return norm_silu(x, n, groups);
  return act(op::group_norm(x, n.weight, n.bias, static_cast<int>(groups), kEps));
}

std::string str(size_t i) {
  return std::to_string(i);
}

}  // namespace

ResBlock::ResBlock(int64_t in, int64_t out, const AutoencoderConfig& c)
    : groups(c.groups),
      activation(c.activation),
      norm1{in},
      norm2{out},
      conv1{in, out},
      conv2{out, out},
      shortcut{in, out, 1} {}

Tensor ResBlock::operator()(const Tensor& x) const {
  const Tensor first = conv1(norm_act(x, norm1, groups, activation));
  const Tensor h = conv2(norm_act(first, norm2, groups, activation));
  return op::add(shortcut.in == shortcut.out ? x : shortcut.pointwise(x), h);
}

AttentionBlock::AttentionBlock(int64_t width, int64_t g)
    : groups(g), norm{width}, q{width, width}, k{width, width}, v{width, width}, proj_out{width, width} {}

Tensor AttentionBlock::operator()(const Tensor& x) const {
  const int64_t b = x.dim(0), n = x.dim(1) * x.dim(2), c = x.dim(3);
  const Tensor a = op::group_norm(x, norm.weight, norm.bias, static_cast<int>(groups), kEps);
  const Shape heads{b, 1, n, c};
  const Tensor o =
      op::attention(op::reshape(q(a), heads), op::reshape(k(a), heads), op::reshape(v(a), heads));
  return op::add(x, proj_out(op::reshape(o, x.shape())));
}

Tensor MidBlock::operator()(const Tensor& x, Trace* trace, const std::string& name) const {
  const auto seen = [&](const char* part, const Tensor& y) {
    if (trace) observe(trace, name + part, op::nhwc_to_nchw(y));
    return y;
  };
  Tensor y = seen("block_1", block_1(x));
  if (attention) y = seen("attn_1", attn_1(y));
  return seen("block_2", block_2(y));
}

Encoder::Encoder(const AutoencoderConfig& c)
    : config(c),
      conv_in{c.channels, c.encoder_widths.front()},
      conv_out{c.encoder_widths.back(), 2 * c.latent_channels},
      quant_conv{2 * c.latent_channels, 2 * c.latent_channels, 1},
      mid(c.encoder_widths.back(), c),
      norm_out{c.encoder_widths.back()} {
  int64_t width = c.encoder_widths.front();
  for (size_t i = 0; i < c.encoder_widths.size(); ++i) {
    Level level;
    for (int64_t b = 0; b < c.blocks; ++b) {
      level.blocks.emplace_back(width, c.encoder_widths[i], c);
      width = c.encoder_widths[i];
    }
    level.has_resample = i + 1 < c.encoder_widths.size();
    level.resample = Conv2d{width, width};
    down.push_back(level);
  }
}

Tensor Encoder::operator()(const Tensor& image, Trace* trace) const {
  const auto seen = [&](const std::string& name, const Tensor& y) {
    if (trace) observe(trace, "encoder." + name, op::nhwc_to_nchw(y));
  };
  Tensor x = conv_in(op::nchw_to_nhwc(image));
  seen("conv_in", x);
  for (size_t i = 0; i < down.size(); ++i) {
    for (const ResBlock& block : down[i].blocks) x = block(x);
    seen("down." + str(i), x);
    // Padded on the right and at the bottom only.
    if (down[i].has_resample) x = down[i].resample(x, {2, 0, 0, 1, 1});
  }
  x = mid(x, trace, "encoder.mid.");
  x = conv_out(norm_silu(x, norm_out, config.groups));
  seen("conv_out", x);
  return config.quant_conv ? quant_conv.pointwise(x) : x;
}

Decoder::Decoder(const AutoencoderConfig& c)
    : config(c),
      conv_in{c.latent_channels, c.decoder_widths.back()},
      conv_out{c.decoder_widths.front(), c.channels},
      post_quant_conv{c.latent_channels, c.latent_channels, 1},
      mid(c.decoder_widths.back(), c),
      norm_out{c.decoder_widths.front()} {
  up.resize(c.decoder_widths.size());
  int64_t width = c.decoder_widths.back();
  for (size_t i = up.size(); i-- > 0;) {
    for (int64_t b = 0; b < c.blocks + 1; ++b) {
      up[i].blocks.emplace_back(width, c.decoder_widths[i], c);
      width = c.decoder_widths[i];
    }
    up[i].has_resample = i > 0;
    up[i].resample = Conv2d{width, width};
  }
}

Tensor Decoder::operator()(const Tensor& z, Trace* trace) const {
  const auto seen = [&](const std::string& name, const Tensor& y) {
    if (trace) observe(trace, "decoder." + name, op::nhwc_to_nchw(y));
  };
  Tensor x = conv_in(config.post_quant_conv ? post_quant_conv.pointwise(z) : z);
  seen("conv_in", x);
  x = mid(x, trace, "decoder.mid.");
  for (size_t i = up.size(); i-- > 0;) {
    for (const ResBlock& block : up[i].blocks) x = block(x);
    seen("up." + str(i), x);
    if (up[i].has_resample) x = up[i].resample(op::upsample_nearest2(x));
  }
  x = conv_out(norm_silu(x, norm_out, config.groups));
  seen("conv_out", x);
  return x;
}

AutoencoderKL::AutoencoderKL(const AutoencoderConfig& config)
    : config_((config.check(), config)), decoder_(config), statistics_{config.folded_channels()} {
  if (config.has_encoder()) encoder_.emplace(config);
}

void AutoencoderKL::set_factors(float scaling, float shift) {
  config_.scaling_factor = scaling;
  config_.shift_factor = shift;
  config_.check();
}

void AutoencoderKL::set_statistics(Device& device, std::span<const float> mean, std::span<const float> var) {
  const Shape shape{config_.folded_channels()};
  for (const auto& [values, tensor] : {std::pair{mean, &statistics_.mean}, std::pair{var, &statistics_.var}})
    *tensor = Tensor::from(device, values, shape);
  check_statistics();
}

void AutoencoderKL::check_statistics() const {
  if (!config_.statistics || statistics_.var.device().rehearsing()) return;
  const std::vector<float> var = statistics_.var.to_host();
  for (size_t i = 0; i < var.size(); ++i) {
    if (std::isfinite(var[i]) && var[i] >= 0 && var[i] + config_.statistics_eps > 0) continue;
    throw Error(
        ErrorCode::format,
        fmt::format("bn.running_var[{}] of the autoencoder is {}: a variance isn't negative, and with "
                    "the eps of {} it must be over 0",
                    i, var[i], config_.statistics_eps));
  }
}

AutoencoderKL::Posterior AutoencoderKL::encode(const Tensor& image, Trace* trace) const {
  if (!encoder_) {
    throw Error(ErrorCode::unsupported,
                "this autoencoder's file holds a decoder only, which can't read a picture: give the whole "
                "autoencoder (--vae)");
  }
  const int64_t f = config_.z_factor(), z = config_.latent_channels;
  if (image.rank() != 4 || image.dim(1) != config_.channels || image.dim(2) % f || image.dim(3) % f) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("the autoencoder reads [batch, {}, H, W] with sides that are multiples of {}, not {}",
                    config_.channels, f, image.shape().str()));
  }
  const Tensor moments = op::nhwc_to_nchw((*encoder_)(image, trace));
  observe(trace, "moments", moments);
  return {op::narrow(moments, 1, 0, z), op::narrow(moments, 1, z, z)};
}

Tensor AutoencoderKL::decode(const Tensor& z, Trace* trace) const {
  if (z.rank() != 4 || z.dim(1) != config_.latent_channels) {
    throw Error(ErrorCode::invalid_argument, fmt::format("the decoder reads [batch, {}, h, w], not {}",
                                                         config_.latent_channels, z.shape().str()));
  }
  return op::nhwc_to_nchw(decoder_(op::nchw_to_nhwc(z), trace));
}

Tensor AutoencoderKL::fold(const Tensor& z) const {
  const int64_t p = config_.patch;
  if (p == 1) return z;
  if (z.rank() != 4 || z.dim(2) % p || z.dim(3) % p) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} can't be folded into squares of {}x{} cells: the picture's sides must be "
                            "multiples of {} pixels",
                            z.shape().str(), p, p, config_.factor()));
  }
  return fold_squares(z, p);
}

Tensor AutoencoderKL::unfold(const Tensor& x) const {
  const int64_t p = config_.patch;
  if (x.rank() != 4 || x.dim(1) != config_.folded_channels()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("the autoencoder's latents are [batch, {}, h, w], not {}",
                            config_.folded_channels(), x.shape().str()));
  }
  return p == 1 ? x : unfold_squares(x, p);
}

Tensor AutoencoderKL::deviations() const {
  return op::reshape(op::unary(op::affine(statistics_.var, 1, config_.statistics_eps), op::Unary::sqrt),
                     {1, config_.folded_channels(), 1, 1});
}

Tensor AutoencoderKL::to_latent(const Tensor& z) const {
  if (!config_.statistics)
    return op::affine(z, config_.scaling_factor, -config_.shift_factor * config_.scaling_factor);
  const Tensor mean = op::reshape(statistics_.mean, {1, config_.folded_channels(), 1, 1});
  return op::div(op::sub(fold(z), mean), deviations());
}

Tensor AutoencoderKL::from_latent(const Tensor& x) const {
  if (!config_.statistics) return op::affine(x, 1 / config_.scaling_factor, config_.shift_factor);
  const Tensor mean = op::reshape(statistics_.mean, {1, config_.folded_channels(), 1, 1});
  return unfold(op::add(op::mul(x, deviations()), mean));
}

InitRule autoencoder_init() {
  return [](const Param& p) -> Init {
    const auto has = [&](std::string_view part) { return p.name.find(part) != std::string::npos; };
    if (has("bn.")) return {Init::Kind::constant, has("running_var") ? 1.0f : 0.0f};
    if (has("norm")) return {Init::Kind::constant, p.name.ends_with("weight") ? 1.0f : 0.0f};
    if (p.shape.rank() < 2 || has("conv2.") || has("proj_out.")) return {};
    const int64_t fan_in = p.shape.numel() / p.shape[0];
    return {Init::Kind::uniform, static_cast<float>(1 / std::sqrt(static_cast<double>(fan_in)))};
  };
}

void damp_log_variance(AutoencoderKL& model) {
  for (const Param& p : parameters(model)) {
    const bool mixes = p.name.find("quant_conv.") != std::string::npos;
    if (!mixes && p.name != "encoder.conv_out.weight" && p.name != "encoder.conv_out.bias") continue;
    std::vector<float> host = p.tensor->to_host();
    const bool weight = p.shape.rank() > 1;
    if (mixes) {  // in the beginning means and variances pass as they are
      const auto n = static_cast<size_t>(p.shape[0]);
      for (size_t i = 0; i < host.size(); ++i) host[i] = weight && i / n == i % n ? 1.0f : 0.0f;
    } else {
      for (size_t i = host.size() / 2; i < host.size(); ++i) host[i] = weight ? 0.1f * host[i] : -5.0f;
    }
    p.tensor->copy_from_host(std::span<const float>(host));
  }
}

}  // namespace vkflux
