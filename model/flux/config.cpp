#include "model/flux/config.h"

#include <fmt/format.h>

#include <numeric>
#include <string_view>

#include "model/io/config_fields.h"
#include "model/joint_blocks.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using Shapes = std::map<std::string, Shape>;

const Shape& need(const Shapes& shapes, const std::string& name, int rank) {
  return need_shape("FLUX.1", shapes, name, rank);
}

void refuse_relatives(const Shapes& shapes) {
  struct Relative {
    std::string_view prefix, what;
  };
  constexpr Relative kRelatives[] = {
      {"distilled_guidance_layer.", "this is Chroma, not FLUX.1"},
      {"double_stream_modulation_img.", "this is FLUX.2, not FLUX.1"},
      {"byt5_in.", "this is a video model, not FLUX.1"},
      {"img_in.proj.", "this is a video model, not FLUX.1"},
      {"nerf_image_embedder.", "this is Chroma Radiance, not FLUX.1"},
      {"lora_", "this is a LoRA, not a transformer"},
  };
  for (const Relative& r : kRelatives) {
    const auto it = shapes.lower_bound(std::string(r.prefix));
    if (it != shapes.end() && it->first.starts_with(r.prefix)) {
      throw Error(ErrorCode::unsupported, fmt::format("{} (it has {})", r.what, it->first));
    }
  }
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const Flux1Config& c) {
  const auto fail = [code](const std::string& what) { throw Error(code, "FLUX.1 config: " + what); };
  for (const int64_t v : {c.in_channels, c.out_channels, c.vec_in_dim, c.context_in_dim, c.hidden,
                          c.mlp_hidden, c.heads, c.head_dim}) {
    if (v <= 0) fail("every size must be positive");
  }
  if (c.depth < 0 || c.depth_single < 0) fail("depths must not be negative");
  if (c.heads * c.head_dim != c.hidden)
    fail(fmt::format("{} heads of {} aren't hidden size {}", c.heads, c.head_dim, c.hidden));
  if (c.head_dim % 4 != 0) fail(fmt::format("head size {} must be a multiple of 4", c.head_dim));
  for (const int64_t a : c.axes_dim) {
    if (a <= 0 || a % 2 != 0)
      fail(fmt::format("rope axis of {} channels: expected a positive even number", a));
  }
  const int64_t sum = std::accumulate(c.axes_dim.begin(), c.axes_dim.end(), int64_t{0});
  if (c.axes_dim.size() != 3 || sum != c.head_dim) {
    fail(fmt::format("rope needs 3 axes with {} channels together, {} given with {}", c.head_dim,
                     c.axes_dim.size(), sum));
  }
  if (!(c.theta > 1)) fail("theta must be over 1");
}

}  // namespace

std::vector<int64_t> default_rope_axes(int64_t head_dim) {
  int64_t first = (head_dim + 7) / 8;
  first += first % 2;
  while (first < head_dim && (head_dim - first) % 4 != 0) first += 2;
  return {first, (head_dim - first) / 2, (head_dim - first) / 2};
}

int64_t flux1_fill_factor(const Flux1Config& c) {
  for (int64_t factor = 1; factor <= 128; factor *= 2) {
    if (c.in_channels == 2 * c.out_channels + 4 * factor * factor) return factor;
  }
  return 0;
}

void Flux1Config::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

Flux1Config infer_flux1_config(const Shapes& shapes) {
  refuse_relatives(shapes);
  Flux1Config c;
  const Shape& img_in = need(shapes, "img_in.weight", 2);
  c.hidden = img_in[0];
  c.in_channels = img_in[1];
  c.context_in_dim = need(shapes, "txt_in.weight", 2)[1];
  c.vec_in_dim = need(shapes, "vector_in.in_layer.weight", 2)[1];
  c.out_channels = need(shapes, "final_layer.linear.weight", 2)[0];
  c.depth = count_blocks(shapes, "double_blocks.");
  c.depth_single = count_blocks(shapes, "single_blocks.");
  c.guidance = shapes.count("guidance_in.in_layer.weight") != 0;
  if (c.depth > 0) {
    c.head_dim = need(shapes, "double_blocks.0.img_attn.norm.query_norm.scale", 1)[0];
    c.mlp_hidden = need(shapes, "double_blocks.0.img_mlp.0.weight", 2)[0];
  } else {
    c.head_dim = need(shapes, "single_blocks.0.norm.query_norm.scale", 1)[0];
    c.mlp_hidden = need(shapes, "single_blocks.0.linear1.weight", 2)[0] - 3 * c.hidden;
  }
  if (c.hidden % c.head_dim != 0) {
    throw Error(ErrorCode::format,
                fmt::format("hidden size {} isn't a multiple of head size {}", c.hidden, c.head_dim));
  }
  c.heads = c.hidden / c.head_dim;
  if (c.in_channels != c.out_channels && c.in_channels != 2 * c.out_channels && flux1_fill_factor(c) == 0) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("tokens of {} channels in, {} out: expected as many in as out, twice as many (Canny, "
                    "Depth), or twice as many and a mask's, {} for an autoencoder of factor 8 (Fill)",
                    c.in_channels, c.out_channels, 2 * c.out_channels + 256));
  }
  c.axes_dim = default_rope_axes(c.head_dim);
  check_as(ErrorCode::format, c);
  return c;
}

void apply_flux1_json(Flux1Config& config, const io::Json& json) {
  const ErrorContext context("config.json");
  io::refuse_other(json, "patch_size", {1}, "transformer");
  const io::Json weights = flux1_json(config);
  for (const auto& [key, actual] : weights.items()) {
    if (key != "_class_name" && key != "patch_size" && key != "axes_dims_rope")
      io::refuse_contradiction(json, key, actual, "transformer");
  }
  const auto it = json.find("axes_dims_rope");
  if (it == json.end() || it->is_null()) return;
  if (!it->is_array() || it->size() != 3)
    throw Error(ErrorCode::format, "axes_dims_rope must be a list of 3 numbers");
  std::vector<int64_t> axes;
  for (const auto& a : *it) {
    if (!a.is_number_integer()) throw Error(ErrorCode::format, "axes_dims_rope must hold integers");
    axes.push_back(a.get<int64_t>());
    if (axes.back() <= 0 || axes.back() > config.head_dim) {
      throw Error(ErrorCode::format,
                  fmt::format("axes_dims_rope: {} is outside 1..{}", axes.back(), config.head_dim));
    }
  }
  config.axes_dim = axes;
  check_as(ErrorCode::format, config);
}

io::Json flux1_json(const Flux1Config& c) {
  return {{"_class_name", "FluxTransformer2DModel"},
          {"patch_size", 1},
          {"in_channels", c.in_channels},
          {"out_channels", c.out_channels},
          {"num_layers", c.depth},
          {"num_single_layers", c.depth_single},
          {"attention_head_dim", c.head_dim},
          {"num_attention_heads", c.heads},
          {"joint_attention_dim", c.context_in_dim},
          {"pooled_projection_dim", c.vec_in_dim},
          {"guidance_embeds", c.guidance},
          {"axes_dims_rope", c.axes_dim}};
}

}  // namespace vkflux
