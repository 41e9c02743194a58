#include "model/vae/load.h"

#include "model/io/names.h"
#include "model/load.h"

namespace vkflux {
namespace {

// Levels are needed to read the names, and only the names tell them: no autoencoder has more than eight.
constexpr int64_t kMaxLevels = 8;

}  // namespace

AutoencoderKL load_autoencoder(Device& device, const std::string& dir) {
  const io::Json json = io::read_json(dir + "/config.json");
  const auto widths = io::get<std::vector<int64_t>>(json, "block_out_channels", dir + "/config.json");
  if (widths.empty() || static_cast<int64_t>(widths.size()) > kMaxLevels) {
    throw Error(ErrorCode::format, dir + "/config.json: block_out_channels must list 1 to 8 widths");
  }
  const auto file = io::open_tensors(dir);
  const io::NamedTensors tensors(*file, io::vae_names(static_cast<int64_t>(widths.size())));
  AutoencoderConfig config = infer_autoencoder_config(shapes_of(tensors));
  apply_autoencoder_json(config, json);
  AutoencoderKL model(config);
  load(parameters(model), tensors, device);
  return model;
}

}  // namespace vkflux
