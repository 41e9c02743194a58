#include "model/vae/load.h"

#include <algorithm>

#include "model/io/file.h"
#include "model/io/json.h"
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

void save_autoencoder(const std::string& dir, AutoencoderKL& model, int64_t sample_size,
                      io::FileDType matrices) {
  save(parameters(model), dir + "/diffusion_pytorch_model.safetensors",
       io::vae_names(model.config().levels()), matrices);
  io::atomic_write(dir + "/config.json",
                   io::json_text(autoencoder_json(model.config(), sample_size), 2) + "\n");
}

ComponentKind autoencoder_component() {
  return {"autoencoder",
          [](const io::TensorSource& file, const io::Json& json) -> std::optional<io::Json> {
            const auto there = [&](const auto& t) {
              return t.first.find("encoder.down.") != std::string::npos ||
                     t.first.find("encoder.down_blocks.") != std::string::npos;
            };
            if (std::none_of(file.tensors().begin(), file.tensors().end(), there)) return {};
            const io::NamedTensors named(file, io::vae_names(autoencoder_levels(file)));
            AutoencoderConfig config = infer_autoencoder_config(shapes_of(named));
            if (json.is_object() && json.contains("scaling_factor")) apply_autoencoder_json(config, json);
            io::Json out = autoencoder_json(config, 0);
            out.erase("sample_size");
            return out;
          },
          [](const io::TensorSource& file, const io::Json& json) {
            const io::NamedTensors named(file, io::vae_names(autoencoder_levels(file)));
            AutoencoderConfig config = infer_autoencoder_config(shapes_of(named));
            apply_autoencoder_json(config, json);
            AutoencoderKL model(config);
            check(parameters(model), named);
          }};
}

}  // namespace vkflux
