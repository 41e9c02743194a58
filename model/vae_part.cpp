#include "model/vae_part.h"

#include "model/load.h"
#include "model/model_index.h"
#include "model/vae/codec.h"
#include "model/vae/load.h"
#include "model/vae/tiling.h"
#include "vk/error.h"

namespace vkflux {

VaePart read_vae_part(const ModelFiles::Part& files, int64_t channels, bool statistics) {
  const ErrorContext context("vae");
  VaePart out{{}, {}, files.path};
  const auto file = io::open_tensors(files.path);
  out.tiny = tiny_sizes(*file, channels);
  if (out.tiny) return out;
  out.config =
      infer_autoencoder_config(shapes_of(io::NamedTensors(*file, io::vae_names(autoencoder_levels(*file)))));
  if (statistics) need_statistics(out.config);
  if (!statistics && out.config.statistics)
    throw Error(ErrorCode::unsupported,
                "this is the FLUX.2 autoencoder (it has bn.running_mean), FLUX.1's is needed");
  apply_autoencoder_json(out.config, read_config(files));
  return out;
}

PartRecipe vae_recipe(const VaePart& vae) {
  return part_recipe<AutoencoderKL>("vae", PartUse::per_picture, io::vae_names(vae.config.levels()), nullptr,
                                    vae.config);
}

std::shared_ptr<LatentCodec> vae_codec(Device& device, PartWeights& weights, const VaePart& vae) {
  const Tiling& tiling = weights.residency().tiling;
  if (vae.tiny)
    return tiled(load_tiny_codec(device, vae.path, vae.tiny->channels, vae.tiny->cell), vae.cell(), tiling);
  return tiled(std::make_shared<AutoencoderCodec>(weights.get<AutoencoderKL>("vae")), vae.cell(), tiling);
}

}  // namespace vkflux
