#include "model/flux2/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "model/io/config_fields.h"
#include "model/joint_blocks.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using Shapes = std::map<std::string, Shape>;

constexpr std::array<std::string_view, 3> kNames{"flux2-dev", "flux2-klein-9b", "flux2-klein-4b"};
constexpr std::array<std::string_view, 14> kFields{"patch_size",
                                                   "in_channels",
                                                   "out_channels",
                                                   "num_layers",
                                                   "num_single_layers",
                                                   "attention_head_dim",
                                                   "num_attention_heads",
                                                   "joint_attention_dim",
                                                   "timestep_guidance_channels",
                                                   "mlp_ratio",
                                                   "axes_dims_rope",
                                                   "rope_theta",
                                                   "eps",
                                                   "guidance_embeds"};

const Shape& need(const Shapes& shapes, const std::string& name, int rank) {
  return need_shape("FLUX.2", shapes, name, rank);
}

[[noreturn]] void refuse(std::string_view what, const std::string& tensor) {
  throw Error(ErrorCode::unsupported, fmt::format("{} (it has {})", what, tensor));
}

void refuse_relatives(const Shapes& shapes) {
  struct Relative {
    std::string_view prefix, what;
  };
  constexpr Relative kRelatives[] = {
      {"distilled_guidance_layer.", "this is Chroma, not FLUX.2"},
      {"nerf_image_embedder.", "this is Chroma Radiance, not FLUX.2"},
      {"byt5_in.", "this is a video model, not FLUX.2"},
      {"img_in.proj.", "this is a video model, not FLUX.2"},
      {"vector_in.", "this is FLUX.1, or Flex, which was made of it, not FLUX.2"},
      {"double_blocks.0.img_mod.", "this is FLUX.1, or Flex, which was made of it, not FLUX.2"},
      {"single_blocks.0.modulation.", "this is FLUX.1, or Flex, which was made of it, not FLUX.2"},
  };
  for (const Relative& r : kRelatives) {
    const auto it = shapes.lower_bound(std::string(r.prefix));
    if (it != shapes.end() && it->first.starts_with(r.prefix)) refuse(r.what, it->first);
  }
  for (const auto& [name, shape] : shapes) {
    for (const char* part : {"lora_", ".lokr_", ".hada_"}) {
      if (name.find(part) != std::string::npos) refuse("this is a LoRA, not a transformer", name);
    }
  }
  for (const auto& [name, shape] : shapes) {
    if (name.ends_with(".bias")) refuse("no FLUX.2 transformer has biases", name);
  }
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const Flux2Config& c) {
  const auto fail = [code](const std::string& what) { throw Error(code, "FLUX.2 config: " + what); };
  for (const int64_t v :
       {c.channels, c.context_in_dim, c.hidden, c.mlp_hidden, c.heads, c.head_dim, c.time_features}) {
    if (v <= 0) fail("every size must be positive");
  }
  if (c.depth < 0 || c.depth_single < 0) fail("depths must not be negative");
  if (c.heads * c.head_dim != c.hidden)
    fail(fmt::format("{} heads of {} aren't hidden size {}", c.heads, c.head_dim, c.hidden));
  if (c.head_dim % 4 != 0) fail(fmt::format("head size {} must be a multiple of 4", c.head_dim));
  if (c.time_features % 2 != 0)
    fail(fmt::format("{} sinusoids of the noise level: expected an even number", c.time_features));
  for (const int64_t a : c.axes_dim) {
    if (a < 0 || a % 2 != 0) fail(fmt::format("rope axis of {} channels: expected an even number", a));
  }
  const int64_t sum = std::accumulate(c.axes_dim.begin(), c.axes_dim.end(), int64_t{0});
  if (c.axes_dim.empty() || c.axes_dim.size() > 4 || sum != c.head_dim) {
    fail(fmt::format("rope needs up to 4 axes with {} channels together, {} given with {}", c.head_dim,
                     c.axes_dim.size(), sum));
  }
  if (!(c.theta > 0) || !std::isfinite(c.theta)) fail("theta must be positive");
  if (!(c.eps >= 0) || !std::isfinite(c.eps)) fail("eps must not be negative");
}

/// The width of the MLPs that diffusers makes of a ratio.
int64_t mlp_width(int64_t hidden, double ratio) {
  const double width = static_cast<double>(hidden) * ratio;
  return std::fabs(width) < 0x1p53 ? static_cast<int64_t>(width) : -1;
}

/// A ratio that gives this width.
double mlp_ratio(const Flux2Config& c) {
  double ratio = static_cast<double>(c.mlp_hidden) / static_cast<double>(c.hidden);
  if (mlp_width(c.hidden, ratio) < c.mlp_hidden) ratio = std::nextafter(ratio, INFINITY);
  return ratio;
}

const io::Json* given(const io::Json& json, const char* key) {
  const auto it = json.is_object() ? json.find(key) : json.end();
  return it == json.end() || it->is_null() ? nullptr : &*it;
}

double number(const io::Json& value, const char* key) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    throw Error(ErrorCode::format,
                fmt::format("\"{}\" is {}; expected a finite number", key, io::shown(io::json_text(value))));
  }
  return value.get<double>();
}

io::Json plain(double x) {
  return x == std::floor(x) && std::fabs(x) < 0x1p53 ? io::Json(static_cast<int64_t>(x)) : io::Json(x);
}

}  // namespace

std::vector<int64_t> flux2_rope_axes(int64_t head_dim) {
  std::vector<int64_t> out(4, head_dim / 8 * 2);
  for (size_t i = 0; i < 4 && head_dim - 4 * (head_dim / 8 * 2) > 2 * static_cast<int64_t>(i); ++i)
    out[i] += 2;
  return out;
}

Flux2Config flux2_config(std::string_view name) {
  Flux2Config c;
  if (name == kNames[0]) return c;
  if (name != kNames[1] && name != kNames[2]) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("no FLUX.2 of the name {}: there are {}", name, fmt::join(kNames, ", ")));
  }
  const bool small = name == kNames[2];
  c.heads = small ? 24 : 32;
  c.hidden = c.heads * c.head_dim;
  c.mlp_hidden = 3 * c.hidden;
  c.context_in_dim = 3 * (small ? 2560 : 4096);
  c.depth = small ? 5 : 8;
  c.depth_single = small ? 20 : 24;
  c.guidance = false;
  return c;
}

void Flux2Config::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

Flux2Config infer_flux2_config(const Shapes& shapes) {
  refuse_relatives(shapes);
  Flux2Config c;
  const Shape& img_in = need(shapes, "img_in.weight", 2);
  c.hidden = img_in[0];
  c.channels = img_in[1];
  c.context_in_dim = need(shapes, "txt_in.weight", 2)[1];
  c.time_features = need(shapes, "time_in.in_layer.weight", 2)[1];
  c.depth = count_blocks(shapes, "double_blocks.");
  c.depth_single = count_blocks(shapes, "single_blocks.");
  c.guidance = shapes.count("guidance_in.in_layer.weight") != 0;
  const int64_t out = need(shapes, "final_layer.linear.weight", 2)[0];
  if (out != c.channels) {
    throw Error(ErrorCode::unsupported, fmt::format("tokens of {} channels in, {} out: expected as many in "
                                                    "as out",
                                                    c.channels, out));
  }
  int64_t gated = 0;
  if (c.depth > 0) {
    c.head_dim = need(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", 1)[0];
    gated = need(shapes, "double_blocks.0.img_mlp.0.weight", 2)[0];
  } else {
    c.head_dim = need(shapes, "single_blocks.0.norm.query_norm.scale", 1)[0];
    gated = need(shapes, "single_blocks.0.linear1.weight", 2)[0] - 3 * c.hidden;
  }
  if (gated <= 0 || gated % 2 != 0) {
    throw Error(ErrorCode::format,
                fmt::format("the MLPs' first matrix has {} rows: expected those of a gate and as many others",
                            gated));
  }
  c.mlp_hidden = gated / 2;
  if (c.hidden % c.head_dim != 0) {
    throw Error(ErrorCode::format,
                fmt::format("hidden size {} isn't a multiple of head size {}", c.hidden, c.head_dim));
  }
  c.heads = c.hidden / c.head_dim;
  c.axes_dim = flux2_rope_axes(c.head_dim);
  check_as(ErrorCode::format, c);
  return c;
}

void apply_flux2_json(Flux2Config& config, const io::Json& json) {
  const ErrorContext context("config.json");
  io::refuse_other(json, "patch_size", {1}, "transformer");
  const io::Json weights = flux2_json(config);
  for (const char* key :
       {"in_channels", "out_channels", "num_layers", "num_single_layers", "attention_head_dim",
        "num_attention_heads", "joint_attention_dim", "timestep_guidance_channels", "guidance_embeds"})
    io::refuse_contradiction(json, key, weights.at(key), "transformer");
  if (const io::Json* ratio = given(json, "mlp_ratio");
      ratio && mlp_width(config.hidden, number(*ratio, "mlp_ratio")) != config.mlp_hidden)
    io::refuse_contradiction(json, "mlp_ratio", weights.at("mlp_ratio"), "transformer");
  if (const io::Json* theta = given(json, "rope_theta")) config.theta = number(*theta, "rope_theta");
  if (const io::Json* eps = given(json, "eps")) config.eps = number(*eps, "eps");
  if (const io::Json* axes = given(json, "axes_dims_rope")) {
    if (!axes->is_array()) throw Error(ErrorCode::format, "axes_dims_rope must be a list of numbers");
    config.axes_dim.clear();
    for (const io::Json& a : *axes) {
      if (!io::holds<int64_t>(a)) throw Error(ErrorCode::format, "axes_dims_rope must hold integers");
      config.axes_dim.push_back(a.get<int64_t>());
      if (config.axes_dim.back() < 0 || config.axes_dim.back() > config.head_dim) {
        throw Error(ErrorCode::format, fmt::format("axes_dims_rope: {} is outside 0..{}",
                                                   config.axes_dim.back(), config.head_dim));
      }
    }
  }
  check_as(ErrorCode::format, config);
}

io::Json flux2_json(const Flux2Config& c) {
  return {{"_class_name", "Flux2Transformer2DModel"},
          {"patch_size", 1},
          {"in_channels", c.channels},
          {"out_channels", c.channels},
          {"num_layers", c.depth},
          {"num_single_layers", c.depth_single},
          {"attention_head_dim", c.head_dim},
          {"num_attention_heads", c.heads},
          {"joint_attention_dim", c.context_in_dim},
          {"timestep_guidance_channels", c.time_features},
          {"mlp_ratio", mlp_ratio(c)},
          {"axes_dims_rope", c.axes_dim},
          {"rope_theta", plain(c.theta)},
          {"eps", c.eps},
          {"guidance_embeds", c.guidance}};
}

std::span<const std::string_view> flux2_fields() {
  return kFields;
}

}  // namespace vkflux
