#include <cmath>

#include "app/verify/case.h"
#include "autograd/ops.h"
#include "model/vae/autoencoder.h"

namespace vkflux::verify {

void run_vae(Case& c) {
  const nlohmann::json& j = c.config();
  AutoencoderConfig config;
  config.channels = field(j, "in_channels", config.channels);
  config.latent_channels = required<int64_t>(j, "z_channels");
  config.encoder_widths.clear();
  for (int64_t m : required<std::vector<int64_t>>(j, "ch_mult"))
    config.encoder_widths.push_back(m * required<int64_t>(j, "ch"));
  // The decoder may be narrower than the encoder.
  config.decoder_widths = config.encoder_widths;
  const int64_t inner = c.weight_shape("decoder.conv_in.weight")[0], whole = config.decoder_widths.back();
  for (int64_t& w : config.decoder_widths) w = w * inner / whole;
  config.blocks = required<int64_t>(j, "num_res_blocks");
  config.scaling_factor = field(j, "scale_factor", 1.0f);
  config.shift_factor = field(j, "shift_factor", 0.0f);
  config.quant_conv = c.has_weight("encoder.quant_conv.weight");
  config.post_quant_conv = c.has_weight("decoder.post_quant_conv.weight");
  if (c.has_weight("bn.running_mean")) {
    config.statistics = true;
    config.statistics_eps = field(j, "bn_eps", config.statistics_eps);
    const double squares = static_cast<double>(c.weight_shape("bn.running_mean").numel()) /
                           static_cast<double>(config.latent_channels);
    config.patch = std::lround(std::sqrt(squares));
  }
  AutoencoderKL model(config);
  c.use(model);
  Trace trace;
  Tensor encoded, decoded, roundtrip;
  {
    const auto scope = c.tape().record();
    if (c.has_in("image")) {
      const AutoencoderKL::Posterior posterior = model.encode(c.in("image"), &trace);
      encoded = model.to_latent(posterior.mean);
      c.mid("moments", op::concat({posterior.mean, posterior.logvar}, 1));
      if (c.file().has("out.roundtrip")) roundtrip = model.decode(model.from_latent(encoded));
    }
    if (c.has_in("z")) decoded = model.decode(model.from_latent(c.in("z")), &trace);
  }
  std::vector<std::pair<Tensor, std::string>> outputs;
  for (const auto& [name, y] :
       {std::pair<std::string, Tensor>{"encoded", encoded}, {"decoded", decoded}, {"roundtrip", roundtrip}}) {
    if (!y.defined()) continue;
    c.out(name, y);
    outputs.emplace_back(y, "loss_cotangent." + name);
  }
  if (decoded.defined()) outputs.emplace_back(decoded, "loss_cotangent");
  for (const auto& [name, value] : trace) {
    if (!c.file().has("mid." + name)) continue;
    // Traced channels last.
    const bool planar = value.shape() == Shape(c.file().info("mid." + name).shape);
    c.mid(name, planar ? value : op::nhwc_to_nchw(value));
  }
  c.backward(outputs);
}

}  // namespace vkflux::verify
