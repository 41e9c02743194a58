#include "model/vae/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/names.h"
#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

// Levels are needed to read the names, and only the names tell them: no autoencoder has more than eight.
constexpr int64_t kMaxLevels = 8;

AutoencoderConfig config_of(const io::TensorSource& file) {
  return infer_autoencoder_config(shapes_of(io::NamedTensors(file, io::vae_names(autoencoder_levels(file)))));
}

/// By what of it can be read at all, so that one kind tells what is wrong with a file.
bool is_flux2(const io::TensorSource& file) {
  const auto has_statistics = [](const auto& t) { return t.first.ends_with("bn.running_mean"); };
  if (std::any_of(file.tensors().begin(), file.tensors().end(), has_statistics)) return true;
  try {
    const io::NamedTensors named(file, io::vae_names(1));
    constexpr int64_t kFlux2Channels = 32;
    const char *post = "decoder.post_quant_conv.weight", *conv = "decoder.conv_in.weight";
    return named.has(post) && named.has(conv) && named.shape(conv).size() == 4 &&
           named.shape(conv)[1] == kFlux2Channels;
  } catch (const Error&) {  // reading it as FLUX.1's says what is wrong
    return false;
  }
}

std::optional<io::Json> described(const io::TensorSource& file, const io::Json& json, bool flux2) {
  if (!has_autoencoder(file) || is_flux2(file) != flux2) return {};
  AutoencoderConfig config = config_of(file);
  if (flux2) need_statistics(config);
  if (json.is_object() && json.contains("latent_channels")) apply_autoencoder_json(config, json);
  io::Json out = autoencoder_json(config, 0);
  out.erase("sample_size");
  if (!config.has_encoder()) out["decoder_only"] = true;
  return out;
}

void check_tensors(const io::TensorSource& file, const io::Json& json) {
  AutoencoderConfig config = config_of(file);
  apply_autoencoder_json(config, json);
  AutoencoderKL model(config);
  check(parameters(model), io::NamedTensors(file, io::vae_names(config.levels())));
}

}  // namespace

void need_statistics(const AutoencoderConfig& config) {
  if (config.statistics) return;
  throw Error(ErrorCode::format,
              fmt::format("FLUX.2 needs an autoencoder with statistics of its latents (bn.running_mean, "
                          "bn.running_var), and this file has none{}",
                          config.has_encoder() ? "" : ": give one that has them beside the decoder"));
}

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
  const ErrorContext context(file->path());
  model.check_statistics();
  return model;
}

void save_autoencoder(const std::string& dir, AutoencoderKL& model, int64_t sample_size,
                      io::FileDType matrices) {
  std::vector<io::TensorData> counter;
  // PyTorch counts batches beside the statistics, and diffusers misses the number where a file hasn't it.
  if (model.config().statistics)
    counter.push_back({"bn.num_batches_tracked", io::FileDType::i64, {}, std::vector<std::byte>(8)});
  save(parameters(model), dir + "/diffusion_pytorch_model.safetensors",
       io::vae_names(model.config().levels()), matrices, {}, std::move(counter));
  io::atomic_write(dir + "/config.json",
                   io::json_text(autoencoder_json(model.config(), sample_size), 2) + "\n");
}

bool has_autoencoder(const io::TensorSource& file) {
  bool encoder = false, decoder = false, other = false;
  for (const auto& [name, info] : file.tensors()) {
    const auto has = [&, &n = name](std::string_view part) { return n.find(part) != std::string::npos; };
    encoder = encoder || has("encoder.down.") || has("encoder.down_blocks.");
    decoder = decoder || has("up.0.block.0.conv1.weight") || has("up_blocks.0.resnets.0.conv1.weight");
    // A U-Net has blocks of the same names, and leads down, too.
    other = other || name.starts_with("down_blocks.") || name.starts_with("down.") || has("time_emb");
  }
  return encoder || (decoder && !other);
}

ComponentKind autoencoder_component() {
  return {"autoencoder",
          [](const io::TensorSource& file, const io::Json& json) { return described(file, json, false); },
          check_tensors};
}

ComponentKind flux2_autoencoder_component() {
  return {"flux.2 autoencoder",
          [](const io::TensorSource& file, const io::Json& json) { return described(file, json, true); },
          check_tensors};
}

}  // namespace vkflux
