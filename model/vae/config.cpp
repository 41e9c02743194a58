#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/config_fields.h"
#include "model/vae/autoencoder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxLevels = 8;

using Shapes = std::map<std::string, Shape>;

const Shape& need(const Shapes& shapes, const std::string& name) {
  const auto it = shapes.find(name);
  if (it == shapes.end()) {
    throw Error(ErrorCode::format, fmt::format("not a Flux autoencoder: tensor {} is missing", name));
  }
  if (it->second.rank() != 4 || it->second.numel() == 0) {
    throw Error(ErrorCode::format, fmt::format("{} is {}, expected a convolution [out, in, kernel, kernel]",
                                               name, it->second.str()));
  }
  return it->second;
}

/// Output widths of the levels "half.N.block.0.conv1".
std::vector<int64_t> widths(const Shapes& shapes, const std::string& half) {
  std::vector<int64_t> out;
  for (;;) {
    const std::string name = fmt::format("{}.{}.block.0.conv1.weight", half, out.size());
    if (!shapes.count(name)) break;
    out.push_back(need(shapes, name)[0]);
  }
  return out;
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const AutoencoderConfig& c) {
  const auto fail = [code](const std::string& what) { throw Error(code, "autoencoder config: " + what); };
  if (c.encoder_widths.empty() || c.levels() > kMaxLevels ||
      c.encoder_widths.size() != c.decoder_widths.size()) {
    fail("encoder and decoder need the same number of levels, 1 to 8");
  }
  if (c.channels <= 0 || c.latent_channels <= 0 || c.blocks <= 0 || c.groups <= 0)
    fail("sizes must be positive");
  for (const auto* list : {&c.encoder_widths, &c.decoder_widths}) {
    for (const int64_t w : *list) {
      if (w <= 0 || w % c.groups) fail(fmt::format("width {} isn't a multiple of {} groups", w, c.groups));
    }
    if (list->back() % 4) fail(fmt::format("the inner width {} must be a multiple of 4", list->back()));
  }
  if (!(c.scaling_factor > 0) || !std::isfinite(c.scaling_factor) || !std::isfinite(c.shift_factor)) {
    fail("scaling_factor must be positive and finite, shift_factor finite");
  }
}

}  // namespace

void AutoencoderConfig::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

int64_t autoencoder_levels(const io::TensorSource& file) {
  int64_t levels = 1;
  for (const auto& [name, info] : file.tensors()) {
    for (int64_t i = levels; i < kMaxLevels; ++i) {
      const bool there = name.find(fmt::format("encoder.down.{}.", i)) != std::string::npos ||
                         name.find(fmt::format("encoder.down_blocks.{}.", i)) != std::string::npos;
      if (there) levels = i + 1;
    }
  }
  return levels;
}

AutoencoderConfig infer_autoencoder_config(const Shapes& shapes) {
  AutoencoderConfig c;
  c.channels = need(shapes, "encoder.conv_in.weight")[1];
  c.latent_channels = need(shapes, "decoder.conv_in.weight")[1];
  c.encoder_widths = widths(shapes, "encoder.down");
  c.decoder_widths = widths(shapes, "decoder.up");
  if (c.encoder_widths.empty() || c.encoder_widths.size() != c.decoder_widths.size()) {
    throw Error(ErrorCode::format, fmt::format("not a Flux autoencoder: {} encoder levels, {} decoder levels",
                                               c.encoder_widths.size(), c.decoder_widths.size()));
  }
  c.blocks = 0;
  while (shapes.count(fmt::format("encoder.down.0.block.{}.conv1.weight", c.blocks))) ++c.blocks;
  c.quant_conv = shapes.count("encoder.quant_conv.weight") != 0;
  c.post_quant_conv = shapes.count("decoder.post_quant_conv.weight") != 0;
  c.mid_attention = shapes.count("encoder.mid.attn_1.q.weight") != 0;
  if (shapes.count("bn.running_mean")) {
    throw Error(ErrorCode::unsupported,
                "this is the FLUX.2 autoencoder (it has bn.running_mean), FLUX.1's is needed");
  }
  c.groups = std::min({int64_t{32}, *std::min_element(c.encoder_widths.begin(), c.encoder_widths.end()),
                       *std::min_element(c.decoder_widths.begin(), c.decoder_widths.end())});
  return c;
}

void apply_autoencoder_json(AutoencoderConfig& c, const io::Json& json) {
  const std::string origin = "vae/config.json";
  const auto act = io::get_or<std::string>(json, "act_fn", "silu", origin);
  c.activation = Activation::of_config(act, origin + ": act_fn");
  for (const auto& [key, type] : {std::pair{"down_block_types", "DownEncoderBlock2D"},
                                  std::pair{"up_block_types", "UpDecoderBlock2D"}}) {
    for (const io::Json& block : io::get_or(json, key, io::Json::array(), origin))
      io::refuse_other({{key, block}}, key, {type}, origin);
  }
  for (const auto& [key, actual] : {std::pair<const char*, io::Json>{"in_channels", c.channels},
                                    {"out_channels", c.channels},
                                    {"latent_channels", c.latent_channels},
                                    {"block_out_channels", c.encoder_widths},
                                    {"layers_per_block", c.blocks},
                                    {"mid_block_add_attention", c.mid_attention},
                                    {"use_quant_conv", c.quant_conv},
                                    {"use_post_quant_conv", c.post_quant_conv}})
    io::refuse_contradiction(json, key, actual, origin);
  for (const char* key : {"latents_mean", "latents_std"}) io::refuse_other(json, key, {nullptr}, origin);
  c.scaling_factor = io::get_or<float>(json, "scaling_factor", c.scaling_factor, origin);
  c.shift_factor = io::get_or<float>(json, "shift_factor", c.shift_factor, origin);
  c.groups = io::get_or<int64_t>(json, "norm_num_groups", c.groups, origin);
  const ErrorContext context(origin);
  check_as(ErrorCode::format, c);
}

io::Json autoencoder_json(const AutoencoderConfig& c, int64_t sample_size) {
  if (c.encoder_widths != c.decoder_widths) {
    throw Error(ErrorCode::unsupported, "vae/config.json states one list of widths for encoder and decoder");
  }
  io::Json j;
  j["_class_name"] = "AutoencoderKL";
  j["act_fn"] = c.activation.name();
  j["block_out_channels"] = c.encoder_widths;
  j["down_block_types"] = std::vector<std::string>(c.encoder_widths.size(), "DownEncoderBlock2D");
  j["up_block_types"] = std::vector<std::string>(c.encoder_widths.size(), "UpDecoderBlock2D");
  j["in_channels"] = c.channels;
  j["out_channels"] = c.channels;
  j["latent_channels"] = c.latent_channels;
  j["layers_per_block"] = c.blocks;
  j["norm_num_groups"] = c.groups;
  j["mid_block_add_attention"] = c.mid_attention;
  j["sample_size"] = sample_size;
  j["scaling_factor"] = c.scaling_factor;
  j["shift_factor"] = c.shift_factor;
  j["use_quant_conv"] = c.quant_conv;
  j["use_post_quant_conv"] = c.post_quant_conv;
  return j;
}

}  // namespace vkflux
