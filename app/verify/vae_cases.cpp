#include "app/verify/case.h"
#include "autograd/ops.h"
#include "model/vae/autoencoder.h"

namespace vkflux::verify {

void run_vae(Case& c) {
  const nlohmann::json& j = c.config();
  AutoencoderConfig config;
  config.channels = j.at("in_channels");
  config.latent_channels = j.at("z_channels");
  config.encoder_widths.clear();
  for (int64_t m : j.at("ch_mult").get<std::vector<int64_t>>())
    config.encoder_widths.push_back(m * j.at("ch").get<int64_t>());
  config.decoder_widths = config.encoder_widths;
  config.blocks = j.at("num_res_blocks");
  config.scaling_factor = j.value("scale_factor", 1.0f);
  config.shift_factor = j.value("shift_factor", 0.0f);
  AutoencoderKL model(config);
  for (const Param& p : parameters(model)) *p.tensor = op::reshape(c.weight(p.name), p.shape);
  Trace trace;
  Tensor encoded, decoded;
  {
    const auto scope = c.tape().record();
    const AutoencoderKL::Posterior posterior = model.encode(c.in("image"), &trace);
    encoded = model.to_latent(posterior.mean);
    decoded = model.decode(model.from_latent(c.in("z")), &trace);
    c.mid("moments", op::concat({posterior.mean, posterior.logvar}, 1));
  }
  c.out("encoded", encoded);
  c.out("decoded", decoded);
  for (const auto& [name, value] : trace) {
    if (!c.file().has("mid." + name)) continue;
    // Traced channels last.
    const bool planar = value.shape() == Shape(c.file().info("mid." + name).shape);
    c.mid(name, planar ? value : op::nhwc_to_nchw(value));
  }
  if (c.file().has("out.roundtrip")) c.out("roundtrip", model.decode(model.from_latent(encoded)));
  std::vector<std::pair<Tensor, std::string>> outputs;
  for (const auto& [y, name] :
       {std::pair{encoded, "loss_cotangent.encoded"}, {decoded, "loss_cotangent.decoded"}}) {
    if (c.has_in(name)) outputs.emplace_back(y, name);
  }
  if (c.has_in("loss_cotangent")) outputs.emplace_back(decoded, "loss_cotangent");
  if (!outputs.empty()) c.backward(outputs);
}

}  // namespace vkflux::verify
