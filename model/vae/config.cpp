#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/config_fields.h"
#include "model/io/decimal.h"
#include "model/vae/autoencoder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxLevels = 8, kMaxPatch = 16;
constexpr const char *kFlux1Class = "AutoencoderKL", *kFlux2Class = "AutoencoderKLFlux2";

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
  if (c.decoder_widths.empty() || c.levels() > kMaxLevels ||
      (c.has_encoder() && c.encoder_widths.size() != c.decoder_widths.size())) {
    fail("encoder and decoder need the same number of levels, 1 to 8");
  }
  if (c.channels <= 0 || c.latent_channels <= 0 || c.blocks <= 0 || c.groups <= 0)
    fail("sizes must be positive");
  for (const auto* list : {&c.encoder_widths, &c.decoder_widths}) {
    for (const int64_t w : *list) {
      if (w <= 0 || w % c.groups) fail(fmt::format("width {} isn't a multiple of {} groups", w, c.groups));
    }
    if (!list->empty() && list->back() % 4)
      fail(fmt::format("the inner width {} must be a multiple of 4", list->back()));
  }
  if (!(c.scaling_factor > 0) || !std::isfinite(c.scaling_factor) || !std::isfinite(c.shift_factor)) {
    fail("scaling_factor must be positive and finite, shift_factor finite");
  }
  if (!(c.statistics_eps >= 0) || !std::isfinite(c.statistics_eps))
    fail("batch_norm_eps must be finite and not negative");
  if (c.patch < 1 || c.patch > kMaxPatch || (c.patch > 1 && !c.statistics))
    fail(fmt::format("patch_size {}: 1 to {} is expected, and 1 without statistics", c.patch, kMaxPatch));
}

}  // namespace

AutoencoderConfig autoencoder_of(std::string_view family) {
  AutoencoderConfig c;
  if (family == "flux1") return c;
  if (family != "flux2") {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("autoencoders of the family {}: known are flux1, flux2", family));
  }
  c.latent_channels = 32;
  c.quant_conv = c.post_quant_conv = c.statistics = true;
  c.patch = 2;
  return c;
}

void AutoencoderConfig::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

int64_t autoencoder_levels(const io::TensorSource& file) {
  int64_t levels = 1;
  for (const auto& [name, info] : file.tensors()) {
    for (int64_t i = levels; i < kMaxLevels; ++i) {
      for (const char* level : {"encoder.down.{}.", "encoder.down_blocks.{}.", "up.{}.", "up_blocks.{}."}) {
        if (name.find(fmt::format(fmt::runtime(level), i)) != std::string::npos) levels = i + 1;
      }
    }
  }
  return levels;
}

AutoencoderConfig infer_autoencoder_config(const Shapes& shapes) {
  AutoencoderConfig c;
  const auto has = [&](const char* name) { return shapes.count(name) != 0; };
  c.latent_channels = need(shapes, "decoder.conv_in.weight")[1];
  c.encoder_widths = widths(shapes, "encoder.down");
  c.decoder_widths = widths(shapes, "decoder.up");
  const bool decoder_only = std::none_of(shapes.begin(), shapes.end(),
                                         [](const auto& s) { return s.first.starts_with("encoder."); });
  if (c.decoder_widths.empty() || (!decoder_only && c.encoder_widths.size() != c.decoder_widths.size())) {
    throw Error(ErrorCode::format, fmt::format("not a Flux autoencoder: {} encoder levels, {} decoder levels",
                                               c.encoder_widths.size(), c.decoder_widths.size()));
  }
  c.channels =
      decoder_only ? need(shapes, "decoder.conv_out.weight")[0] : need(shapes, "encoder.conv_in.weight")[1];
  c.blocks = 0;
  while (shapes.count(fmt::format("decoder.up.0.block.{}.conv1.weight", c.blocks + 1))) ++c.blocks;
  c.quant_conv = has("encoder.quant_conv.weight");
  c.post_quant_conv = has("decoder.post_quant_conv.weight");
  c.mid_attention = has("decoder.mid.attn_1.q.weight");
  if (const auto bn = shapes.find("bn.running_mean"); bn != shapes.end()) {
    c.statistics = true;
    const int64_t z = std::max<int64_t>(c.latent_channels, 1), n = bn->second.numel();
    while (c.patch < kMaxPatch && c.patch * c.patch * z < n) ++c.patch;
    if (c.folded_channels() != n) {
      throw Error(ErrorCode::format,
                  fmt::format("bn.running_mean has {} values: with {} latent channels they are no square "
                              "patches' (patch_size)",
                              n, c.latent_channels));
    }
  }
  c.groups = std::min(int64_t{32}, *std::min_element(c.decoder_widths.begin(), c.decoder_widths.end()));
  for (const int64_t w : c.encoder_widths) c.groups = std::min(c.groups, w);
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
  const auto agrees = [&](const char* key, const io::Json& actual) {
    io::refuse_contradiction(json, key, actual, origin);
  };
  agrees("in_channels", c.channels);
  agrees("out_channels", c.channels);
  agrees("latent_channels", c.latent_channels);
  if (c.has_encoder()) agrees("block_out_channels", c.encoder_widths);
  // As diffusers reads it, an empty list says as little as none.
  if (!io::get_or(json, "decoder_block_out_channels", io::Json::array(), origin).empty())
    agrees("decoder_block_out_channels", c.decoder_widths);
  agrees("layers_per_block", c.blocks);
  agrees("mid_block_add_attention", c.mid_attention);
  if (c.has_encoder()) agrees("use_quant_conv", c.quant_conv);
  agrees("use_post_quant_conv", c.post_quant_conv);
  for (const char* key : {"latents_mean", "latents_std"}) io::refuse_other(json, key, {nullptr}, origin);
  const auto type = io::get_or<std::string>(json, "_class_name", "", origin);
  if ((type == kFlux2Class && !c.statistics) || (type == kFlux1Class && c.statistics)) {
    throw Error(ErrorCode::format,
                fmt::format("{}: \"_class_name\" is {}, but the weights have {} (bn.running_mean, "
                            "bn.running_var), by which the autoencoders of FLUX.2 and FLUX.1 are told apart",
                            origin, type, c.statistics ? "statistics of the latents" : "no statistics"));
  }
  if (c.statistics) {
    agrees("patch_size", {c.patch, c.patch});
    c.statistics_eps = io::get_or<float>(json, "batch_norm_eps", c.statistics_eps, origin);
  } else {
    for (const char* key : {"scaling_factor", "shift_factor"}) {
      if (json.contains(key) && json[key].is_null())
        throw Error(
            ErrorCode::format,
            fmt::format("{}: \"{}\" is null, but FLUX.1's latents are scaled and shifted", origin, key));
    }
    // What diffusers takes where its own config leaves it out.
    constexpr float kDefaultScaling = 0.18215f;
    const bool diffusers = json.is_object() && json.contains("_class_name");
    c.scaling_factor =
        io::get_or<float>(json, "scaling_factor", diffusers ? kDefaultScaling : c.scaling_factor, origin);
    c.shift_factor = io::get_or<float>(json, "shift_factor", c.shift_factor, origin);
  }
  c.groups = io::get_or<int64_t>(json, "norm_num_groups", c.groups, origin);
  const ErrorContext context(origin);
  check_as(ErrorCode::format, c);
}

const std::set<std::string_view>& autoencoder_fields() {
  static const std::set<std::string_view> names{"in_channels",
                                                "out_channels",
                                                "down_block_types",
                                                "up_block_types",
                                                "block_out_channels",
                                                "decoder_block_out_channels",
                                                "layers_per_block",
                                                "act_fn",
                                                "latent_channels",
                                                "norm_num_groups",
                                                "sample_size",
                                                "scaling_factor",
                                                "shift_factor",
                                                "latents_mean",
                                                "latents_std",
                                                "force_upcast",
                                                "use_quant_conv",
                                                "use_post_quant_conv",
                                                "mid_block_add_attention",
                                                "batch_norm_eps",
                                                "batch_norm_momentum",
                                                "patch_size"};
  return names;
}

io::Json autoencoder_json(const AutoencoderConfig& c, int64_t sample_size) {
  const bool other_decoder = c.has_encoder() && c.encoder_widths != c.decoder_widths;
  if (other_decoder && !c.statistics) {
    throw Error(ErrorCode::unsupported, "vae/config.json states one list of widths for encoder and decoder");
  }
  io::Json j;
  j["_class_name"] = c.statistics ? kFlux2Class : kFlux1Class;
  j["act_fn"] = c.activation.name();
  j["block_out_channels"] = c.has_encoder() ? c.encoder_widths : c.decoder_widths;
  if (other_decoder) j["decoder_block_out_channels"] = c.decoder_widths;
  j["down_block_types"] = std::vector<std::string>(c.decoder_widths.size(), "DownEncoderBlock2D");
  j["up_block_types"] = std::vector<std::string>(c.decoder_widths.size(), "UpDecoderBlock2D");
  j["in_channels"] = c.channels;
  j["out_channels"] = c.channels;
  j["latent_channels"] = c.latent_channels;
  j["layers_per_block"] = c.blocks;
  j["norm_num_groups"] = c.groups;
  j["mid_block_add_attention"] = c.mid_attention;
  j["sample_size"] = sample_size;
  if (c.statistics) {
    j["patch_size"] = {c.patch, c.patch};
    j["batch_norm_eps"] = io::decimal(c.statistics_eps);
    j["batch_norm_momentum"] = 0.1;
  } else {
    j["scaling_factor"] = c.scaling_factor;
    j["shift_factor"] = c.shift_factor;
  }
  j["use_quant_conv"] = c.quant_conv;
  j["use_post_quant_conv"] = c.post_quant_conv;
  return j;
}

}  // namespace vkflux
