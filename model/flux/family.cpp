#include "model/flux/family.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "model/flux/files.h"
#include "model/flux/lora.h"
#include "model/flux/shapes.h"
#include "model/flux/tokenizers.h"
#include "model/text/tokenizer.h"
#include "model/vae/load.h"

namespace vkflux {
namespace {

bool is_pipeline(std::string_view name) {
  return name.starts_with("Flux") && !name.starts_with("Flux2");
}

/// A transformer and its text encoders, from scratch.
class TrainableFlux1 final : public TrainableModel {
 public:
  explicit TrainableFlux1(const ModelSizes& s)
      : tokenizers_(s.tokenizers),
        clip_tokenizer_(load_clip_tokenizer(s.tokenizers + "/tokenizer")),
        t5_tokenizer_(load_t5_tokenizer(s.tokenizers + "/tokenizer_2")),
        tokens_(s.tokens),
        transformer_(flux_config(s)),
        clip_(clip_config(s)),
        t5_(t5_config(s)) {}

  Backbone& backbone() override { return transformer_; }
  Schedule schedule() const override { return Schedule::flux1_schnell(); }
  std::vector<Part> parts() override {
    return {{"transformer.", parameters(transformer_), flux1_init()},
            {"text_encoder.", parameters(clip_), clip_init()},
            {"text_encoder_2.", parameters(t5_), t5_init(t5_.config())}};
  }
  Condition encode(const std::vector<std::string>& captions) override {
    TokenIds clip, t5;
    for (const std::string& text : captions) {
      auto [it, fresh] = known_.try_emplace(text);
      if (fresh) it->second = {clip_tokenizer_->encode(text, tokens_), t5_tokenizer_->encode(text, tokens_)};
      clip.push_back(it->second.first);
      t5.push_back(it->second.second);
    }
    const Tensor txt = t5_.forward(t5);
    return {{"txt", txt}, {"y", clip_.forward(clip).pooled}};
  }
  std::vector<TextCut> cuts(const std::vector<std::string>& captions) const override {
    std::vector<TextCut> out;
    find_cuts("CLIP", *clip_tokenizer_, clip_tokenizer_->room(tokens_), captions, out);
    find_cuts("T5", *t5_tokenizer_, t5_tokenizer_->room(tokens_), captions, out);
    return out;
  }
  std::string fingerprint() const override {
    const Flux1Config& c = transformer_.config();
    return fmt::format("hidden {} heads {} depth {} {} tokens {} {}", c.hidden, c.heads, c.depth,
                       c.depth_single, tokens_, tokens_);
  }
  void load(Device& device, const std::string& folder) override {
    const auto part = [&](const char* name, auto& module, const io::NameTable& names) {
      const ErrorContext context(folder + "/" + name);
      const auto file = io::open_tensors(folder + "/" + name);
      vkflux::load(parameters(module), io::NamedTensors(*file, names), device);
    };
    part("transformer", transformer_, io::flux1_names());
    part("text_encoder", clip_, io::clip_names());
    part("text_encoder_2", t5_, io::t5_names());
  }
  void save(const std::string& folder, const std::string& codec, const SamplingDefaults& defaults) override {
    SamplingDefaults recommended = defaults;
    recommended.txt_tokens = tokens_;
    save_flux1(folder, {transformer_, clip_, t5_, tokenizers_ + "/tokenizer", tokenizers_ + "/tokenizer_2",
                        codec, schedule(), recommended, io::FileDType::f16});
  }

 private:
  static Flux1Config flux_config(const ModelSizes& s) {
    Flux1Config c;
    c.in_channels = c.out_channels = 4 * s.latent_channels;
    c.vec_in_dim = c.context_in_dim = s.text_width;
    c.hidden = s.hidden;
    c.mlp_hidden = 4 * s.hidden;
    c.heads = s.heads;
    c.head_dim = s.heads > 0 ? s.hidden / s.heads : 0;  // 0 is refused by the config's check
    c.depth = s.depth;
    c.depth_single = s.depth_single;
    c.axes_dim = default_rope_axes(c.head_dim);
    return c;
  }
  ClipTextConfig clip_config(const ModelSizes& s) const {
    ClipTextConfig c;
    c.vocab = clip_tokenizer_->vocab_size();
    c.positions = s.tokens;
    c.width = s.text_width;
    c.layers = s.text_layers;
    c.heads = s.text_heads;
    c.mlp = s.text_mlp;
    c.eos = clip_tokenizer_->eos_id();
    return c;
  }
  T5Config t5_config(const ModelSizes& s) const {
    T5Config c;
    c.vocab = t5_tokenizer_->vocab_size();
    c.width = s.text_width;
    c.layers = s.text_layers;
    c.heads = s.text_heads;
    c.head_dim = s.text_heads > 0 ? s.text_width / s.text_heads : 0;
    c.mlp = s.text_mlp;
    return c;
  }

  std::string tokenizers_;
  std::shared_ptr<const Tokenizer> clip_tokenizer_, t5_tokenizer_;
  int tokens_;
  Flux1 transformer_;
  ClipText clip_;
  T5Encoder t5_;
  std::map<std::string, std::pair<std::vector<int32_t>, std::vector<int32_t>>> known_;  // captions repeat
};

std::unique_ptr<TrainableModel> create(const ModelSizes& sizes) {
  return std::make_unique<TrainableFlux1>(sizes);
}

/// What the tensors tell of the published variants; fine-tunes and distillations look like what they began
/// as.
const char* variant(const Flux1Config& c) {
  if (c.in_channels == 6 * c.out_channels) return "Fill";
  if (c.in_channels == 2 * c.out_channels) return "Canny or Depth";
  return c.guidance ? "dev, Krea or Kontext" : "schnell";
}

std::optional<io::Json> describe(const io::TensorSource& file, const io::Json& json) {
  const io::NamedTensors named(file, io::flux1_names());
  if (!named.has("img_in.weight") || !named.has("final_layer.linear.weight")) return {};
  const auto shapes = shapes_of(named);
  const auto shared = shapes.lower_bound("double_stream_modulation_img.");
  if (shared != shapes.end() && shared->first.starts_with("double_stream_modulation_img."))
    return {};  // FLUX.2, which has a kind of its own
  Flux1Config config = infer_flux1_config(shapes);
  if (json.is_object() && json.contains("axes_dims_rope")) apply_flux1_json(config, json);
  io::Json out = flux1_json(config);
  out["variant"] = variant(config);
  return out;
}

void check_tensors(const io::TensorSource& file, const io::Json&) {
  const io::NamedTensors named(file, io::flux1_names());
  Flux1 model(infer_flux1_config(shapes_of(named)));
  check(parameters(model), named);
}

/// Numbers that the transformer reads as others of its parts give them.
bool fits(const io::Json& transformer, std::string_view part, const io::Json& config) {
  const auto same = [&](const char* ours, const char* theirs, int64_t times) {
    return !config.contains(theirs) || transformer[ours] == config[theirs].get<int64_t>() * times;
  };
  if (part == "text_encoder") return same("pooled_projection_dim", "hidden_size", 1);
  if (part == "text_encoder_2") return same("joint_attention_dim", "d_model", 1);
  // A decoder alone is taken where it is named, not where it is found.
  return part != "vae" || (!config.contains("decoder_only") && same("out_channels", "latent_channels", 4));
}

std::vector<lora::Component> published_lora_components() {
  Flux1Config dev;
  dev.guidance = true;
  return flux1_lora_components(dev, {}, {});
}

}  // namespace

Family flux1_family() {
  Family out{"flux1", "FLUX.1", is_pipeline, open_flux1, create, flux1_prompt_tokenizers};
  out.parts = {
      {"transformer", "--diffusion-model", flux1_component(), {"diffusion_models", "unet"}, {"flux1"}, {}},
      {"text_encoder",
       "--clip_l",
       clip_component(),
       {"text_encoders", "clip"},
       {"clip_l", "clip-l"},
       "hf download comfyanonymous/flux_text_encoders clip_l.safetensors"},
      {"text_encoder_2",
       "--t5xxl",
       t5_component(),
       {"text_encoders", "clip"},
       {"t5xxl", "t5-v1_1-xxl", "t5"},
       "hf download comfyanonymous/flux_text_encoders t5xxl_fp16.safetensors"},
      {"vae",
       "--vae",
       autoencoder_component(),
       {"vae"},
       {"ae", "flux_vae", "flux-vae"},
       "hf download black-forest-labs/FLUX.1-schnell ae.safetensors"}};
  out.tokenizer_names = {"tokenizer", "tokenizer_2"};
  out.fits = fits;
  out.lora_components = published_lora_components;
  out.published = {kFlux1Published.begin(), kFlux1Published.end()};
  out.shapes = flux1_shapes;
  return out;
}

ComponentKind flux1_component() {
  return {"flux.1 transformer", describe, check_tensors};
}

}  // namespace vkflux
