// The parts of models that files hold, and made-up ones.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/convert.h"
#include "model/flux/lora.h"
#include "model/flux/transformer.h"
#include "model/flux2/lora.h"
#include "model/flux2/transformer.h"
#include "model/io/file.h"
#include "model/philox.h"
#include "model/text/clip.h"
#include "model/text/decoder.h"
#include "model/text/t5.h"
#include "model/vae/autoencoder.h"
#include "model/vae/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

template <class Module, class Config>
std::vector<Param> params_of(const Config& config) {
  Module module(config);
  std::vector<Param> out = parameters(module);
  for (Param& p : out) p.tensor = nullptr;
  return out;
}

ModelPartFile transformer(const Flux1Config& c) {
  return {"transformer", params_of<Flux1>(c), io::flux1_names(),        flux1_storage(), flux1_row_split(c),
          "flux",        flux1_init(),        {flux1_lora_component(c)}};
}
ModelPartFile transformer(const Flux2Config& c) {
  return {"transformer", params_of<Flux2>(c), io::flux2_names(),        flux2_storage(), {},
          "flux",        flux2_init(),        {flux2_lora_component(c)}};
}
ModelPartFile clip(const ClipTextConfig& c) {
  return {"text_encoder", params_of<ClipText>(c),  io::clip_names(), clip_storage(), {}, "clip",
          clip_init(),    {clip_lora_component(c)}};
}
ModelPartFile t5(const T5Config& c) {
  return {"text_encoder_2", params_of<T5Encoder>(c), io::t5_names(), t5_storage(), {}, "t5encoder",
          t5_init(c),       {t5_lora_component(c)}};
}
ModelPartFile vae(const AutoencoderConfig& c) {
  return {
      "vae", params_of<AutoencoderKL>(c), io::vae_names(c.levels()), {{"encoder.", "decoder."}, {}, {}}, {},
      "vae", autoencoder_init()};
}

ModelPartFile decoder(const DecoderConfig& c, const io::NameTable& names) {
  const std::string arch = c.qk_norm ? "qwen3" : "mistral3";
  ModelPartFile part{"text_encoder", params_of<DecoderLm>(c), names, decoder_storage(), {},
                     arch,           decoder_init(c)};
  part.gguf_names = io::decoder_gguf_names(arch, c.head_dim);
  const auto number = [&](const char* key, int64_t value) {
    part.gguf_values.emplace_back(arch + key, static_cast<uint32_t>(value));
  };
  number(".block_count", c.layers);
  number(".embedding_length", c.width);
  number(".feed_forward_length", c.mlp);
  number(".attention.head_count", c.heads);
  number(".attention.head_count_kv", c.kv_heads);
  number(".attention.key_length", c.head_dim);
  number(".attention.value_length", c.head_dim);
  number(".rope.dimension_count", c.head_dim);
  part.gguf_values.emplace_back(arch + ".attention.layer_norm_rms_epsilon", c.eps);
  part.gguf_values.emplace_back(arch + ".rope.freq_base", static_cast<float>(c.theta));
  if (c.rope_factor != 1) {
    part.gguf_values.emplace_back(arch + ".rope.scaling.type", "linear");
    part.gguf_values.emplace_back(arch + ".rope.scaling.factor", static_cast<float>(c.rope_factor));
  }
  return part;
}

/// The config.json beside a file, which knows what its tensors don't; else no object.
io::Json config_beside(const io::TensorSource& file) {
  const std::string& path = file.path();
  const std::string config = path.substr(0, path.find_last_of('/') + 1) + "config.json";
  return io::is_there(config) ? io::read_json(config) : io::Json();
}

bool any_name(const io::TensorSource& file, std::string_view part) {
  return std::any_of(file.tensors().begin(), file.tensors().end(),
                     [&](const auto& t) { return t.first.find(part) != std::string::npos; });
}

// A part where the file has it.
struct Finder {
  const char* name;
  bool (*there)(const io::TensorSource& file);
  ModelPartFile (*read)(const io::TensorSource& file);
};
constexpr std::array kFinders{
    Finder{"transformer",
           [](const io::TensorSource& f) {
             return any_name(f, "double_blocks.0.") || any_name(f, "single_blocks.0.") ||
                    any_name(f, "transformer_blocks.0.");
           },
           [](const io::TensorSource& f) {
             if (any_name(f, "double_stream_modulation_img."))
               return transformer(infer_flux2_config(shapes_of(io::NamedTensors(f, io::flux2_names()))));
             return transformer(infer_flux1_config(shapes_of(io::NamedTensors(f, io::flux1_names()))));
           }},
    Finder{"text_encoder",
           [](const io::TensorSource& f) { return any_name(f, "embeddings.token_embedding.weight"); },
           [](const io::TensorSource& f) {
             return clip(infer_clip_config(shapes_of(io::NamedTensors(f, io::clip_names()))));
           }},
    Finder{"text_encoder_2",
           [](const io::TensorSource& f) {
             return any_name(f, "encoder.block.0.layer.0.SelfAttention.q.weight") ||
                    any_name(f, "enc.blk.0.attn_q.weight");
           },
           [](const io::TensorSource& f) {
             return t5(infer_t5_config(shapes_of(io::NamedTensors(f, io::t5_names()))));
           }},
    Finder{"text_encoder",
           [](const io::TensorSource& f) {
             return (any_name(f, "layers.0.self_attn.q_proj.weight") || f.has("blk.0.attn_q.weight")) &&
                    io::NamedTensors(f, io::decoder_names(f)).has("model.layers.0.self_attn.q_proj.weight");
           },
           [](const io::TensorSource& f) {
             return decoder(decoder_config(f, config_beside(f)), io::decoder_names(f));
           }},
    Finder{"vae", has_autoencoder, [](const io::TensorSource& f) {
             const io::NamedTensors named(f, io::vae_names(autoencoder_levels(f)));
             return vae(infer_autoencoder_config(shapes_of(named)));
           }}};

class RandomWeights final : public WeightSource {
 public:
  RandomWeights(const ModelPartFile& part, uint64_t seed) : init_(part.init), seed_(seed) {}
  io::FileDType stored(const Param&) const override { return io::FileDType::bf16; }
  void values(const Param& p, uint64_t first, std::span<float> out) const override {
    Init init = init_(p);
    // What training starts from zero would hide everything behind it.
    if (init.kind == Init::Kind::constant && init.a == 0 && p.shape.rank() > 1)
      init = {Init::Kind::normal, 0.02f};
    if (init.kind == Init::Kind::constant) return std::fill(out.begin(), out.end(), init.a);
    // Uniform with the deviation that is wanted.
    const float reach = init.kind == Init::Kind::normal ? init.a * std::sqrt(3.0f) : init.a;
    uint64_t key = seed_;
    for (const char c : p.name) key = (key ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    PhiloxBlock block{};
    for (size_t i = 0; i < out.size(); ++i) {
      const uint64_t at = first + i;
      if (i == 0 || at % 4 == 0) {
        const uint64_t n = at / 4;
        block = philox4x32({static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32), 0, 0},
                           {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
      }
      out[i] = reach * (static_cast<float>(block[at % 4] >> 8) * 0x1p-23f - 1);
    }
  }

 private:
  InitRule init_;
  uint64_t seed_;
};

}  // namespace

ModelPartFile part_of_file(const io::TensorSource& file, const std::string& wanted) {
  std::vector<const Finder*> found;
  std::vector<std::string> names;
  for (const Finder& f : kFinders) {
    if (!f.there(file)) continue;
    found.push_back(&f);
    names.emplace_back(f.name);
  }
  if (found.empty())
    throw Error(
        ErrorCode::format,
        fmt::format("{}: these tensors are no transformer, text encoder or autoencoder that is known; "
                    "vkflux inspect says what there is",
                    file.path()));
  auto chosen = found.end();
  if (wanted.empty()) {
    if (found.size() > 1)
      throw Error(ErrorCode::invalid_argument, fmt::format("{} holds several parts: say which with --part {}",
                                                           file.path(), fmt::join(names, "|")));
    chosen = found.begin();
  } else {
    chosen = std::find_if(found.begin(), found.end(), [&](const Finder* f) { return f->name == wanted; });
    if (chosen == found.end())
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} has no part {}, it has {}", file.path(), wanted, fmt::join(names, ", ")));
  }
  ModelPartFile part = (*chosen)->read(file);
  io::NamedShapes expected;
  for (const Param& p : part.params)
    expected.emplace_back(p.name, std::vector<int64_t>(p.shape.begin(), p.shape.end()));
  io::NamedTensors(file, part.names).check(expected);
  return part;
}

const std::vector<std::string>& made_up_parts() {
  static const std::vector<std::string> names{
      "flux1-dev",      "flux1-schnell", "t5xxl",    "clip_l",        "ae", "flux2-dev", "flux2-klein-9b",
      "flux2-klein-4b", "qwen3_4b",      "qwen3_8b", "mistral_small", "ae2"};
  return names;
}

ModelPartFile made_up_part(const std::string& name, const MadeUpSizes& sizes) {
  const auto size = [](int64_t wanted, int64_t published) { return wanted > 0 ? wanted : published; };
  if (name == "t5xxl") {
    T5Config c;
    c.layers = size(sizes.depth, c.layers);
    return t5(c);
  }
  if (name == "clip_l") {
    ClipTextConfig c;
    c.layers = size(sizes.depth, c.layers);
    return clip(c);
  }
  if (name == "ae") return vae({});
  if (name == "ae2") return vae(autoencoder_of("flux2"));
  if (name == "qwen3_4b" || name == "qwen3_8b" || name == "mistral_small") {
    DecoderConfig c = name == "qwen3_4b"   ? qwen3_4b_config()
                      : name == "qwen3_8b" ? qwen3_8b_config()
                                           : mistral_small_config();
    c.layers = size(sizes.depth, c.layers);
    return decoder(c, {});
  }
  if (name.starts_with("flux2-")) {
    Flux2Config c = flux2_config(name);
    c.depth = size(sizes.depth, c.depth);
    c.depth_single = size(sizes.depth_single, c.depth_single);
    return transformer(c);
  }
  Flux1Config c;
  c.guidance = name == "flux1-dev";
  c.depth = size(sizes.depth, c.depth);
  c.depth_single = size(sizes.depth_single, c.depth_single);
  return transformer(c);
}

std::unique_ptr<WeightSource> random_weights(const ModelPartFile& part, uint64_t seed) {
  return std::make_unique<RandomWeights>(part, seed);
}

}  // namespace vkflux
