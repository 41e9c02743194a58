// The files of a FLUX.1 model as a Model.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/flux/files.h"
#include "model/flux/lora.h"
#include "model/flux/parts.h"
#include "model/flux/tokenizers.h"
#include "model/known_fields.h"
#include "model/lora/lora.h"
#include "model/model_index.h"
#include "model/parts_model.h"
#include "model/prompt_cache.h"
#include "model/sampler/scheduler_config.h"
#include "model/text/tokenizer.h"
#include "model/weight_stream.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char *kClip = "text_encoder", *kT5 = "text_encoder_2";

const std::set<std::string_view> kTransformerFields{
    "patch_size",          "in_channels",         "out_channels",
    "num_layers",          "num_single_layers",   "attention_head_dim",
    "num_attention_heads", "joint_attention_dim", "pooled_projection_dim",
    "guidance_embeds",     "axes_dims_rope"};

class Flux1Model final : public PartsModel {
 public:
  Flux1Model(Device& device, const ModelFiles& files, const ModelOptions& options)
      : PartsModel(device, files), options_(options) {
    read_index();
    read_configs();
    read_tokenizers();
    check_parts();
    info_.layout = flux1_layout(flux_);
    info_.pixels_per_cell = vae_.cell();
    if (!options_.loras.empty())
      loras_ =
          LoraSet(options_.loras, flux1_lora_components(flux_, clip_config_, t5_config_), options_.remark);
    weights_ = std::make_unique<PartWeights>(
        device, flux1_recipes({clip_config_, t5_config_, flux_, vae_}), opener(),
        PartWeights::Options{options.weights, options.remark, options.keep_parts, &loras_});
  }

  std::shared_ptr<Backbone> backbone() override { return weights_->get<Flux1>("transformer"); }
  std::shared_ptr<LatentCodec> codec() override { return vae_codec(device_, *weights_, vae_); }
  Condition encode(const std::vector<std::string>& prompts) override {
    const auto [clip_ids, t5_ids] = ids(prompts);
    // A plan is for any prompt: it counts the encoders.
    const bool cached = options_.prompt_cache && !device_.rehearsing();
    const auto fresh = [&, &for_clip = clip_ids, &for_t5 = t5_ids]() -> Condition {
      const Tensor y = clip()->forward(for_clip).pooled;
      return {{"txt", t5()->forward(for_t5)}, {"y", y}};
    };
    if (!cached) return fresh();
    const auto n = static_cast<int64_t>(prompts.size());
    return prompt_cache_.get(device_, encoding_key(clip_ids, t5_ids),
                             {{"txt", {n, t5_length(), t5_config_.width}}, {"y", {n, clip_config_.width}}},
                             fresh);
  }
  std::string not_finite_in_encode(const std::vector<std::string>& prompts) override {
    const auto [clip_ids, t5_ids] = ids(prompts);
    std::string where = first_not_finite(
        [&, &tokens = clip_ids](Trace* trace) { return clip()->forward(tokens, trace).pooled; });
    if (!where.empty()) return fmt::format("{}: {}", kClip, where);
    where = first_not_finite([&, &tokens = t5_ids](Trace* trace) { return t5()->forward(tokens, trace); });
    return where.empty() ? where : fmt::format("{}: {}", kT5, where);
  }
  bool use_f32(ModelStage stage) override {
    if (stage == ModelStage::text) {
      const bool clip = weights_->use_f32(kClip);
      return weights_->use_f32(kT5) || clip;
    }
    return weights_->use_f32("transformer");
  }
  std::vector<TextCut> cuts(const std::vector<std::string>& prompts) const override {
    std::vector<TextCut> out;
    find_cuts("CLIP", *clip_tokenizer_, clip_tokenizer_->room(clip_length()), prompts, out);
    find_cuts("T5", *t5_tokenizer_, t5_tokenizer_->room(t5_length()), prompts, out);
    return out;
  }

 private:
  std::shared_ptr<ClipText> clip() { return weights_->get<ClipText>(kClip); }
  std::shared_ptr<T5Encoder> t5() { return weights_->get<T5Encoder>(kT5); }
  /// Of CLIP and of T5.
  std::pair<TokenIds, TokenIds> ids(const std::vector<std::string>& prompts) const {
    std::pair<TokenIds, TokenIds> out;
    for (const std::string& prompt : prompts) {
      out.first.push_back(clip_tokenizer_->encode(prompt, clip_length()));
      out.second.push_back(t5_tokenizer_->encode(prompt, t5_length()));
    }
    return out;
  }
  /// Everything that the encoded prompts depend on.
  std::string encoding_key(const TokenIds& clip_ids, const TokenIds& t5_ids);
  int clip_length() const { return static_cast<int>(clip_config_.positions); }
  int t5_length() const { return static_cast<int>(info_.defaults.txt_tokens); }

  void read_index();
  void set_picture_inputs();
  void read_configs();
  void read_tokenizers();
  void check_parts() const;

  ModelOptions options_;
  PromptCache prompt_cache_;
  std::string encoders_;  // their fingerprints, made when they are first needed
  LoraSet loras_;
  Flux1Config flux_;
  VaePart vae_;
  ClipTextConfig clip_config_;
  T5Config t5_config_;
  std::unique_ptr<Tokenizer> clip_tokenizer_, t5_tokenizer_;
};

std::string Flux1Model::encoding_key(const TokenIds& clip_ids, const TokenIds& t5_ids) {
  for (const char* part : {kClip, kT5}) {
    if (encoders_.size() >= 2 * 32) break;
    const auto file = io::open_tensors(files_.parts.at(part).path);
    encoders_ += fingerprint(*file);
  }
  std::string key =
      fmt::format("{} {} {} {} {}", encoders_, options_.weights ? name(*options_.weights) : "file",
                  clip_json(clip_config_).dump(), t5_json(t5_config_).dump(), device_key(device_));
  for (const char* part : {kClip, kT5}) key += loras_.fingerprint(part);
  for (const TokenIds* ids : {&clip_ids, &t5_ids}) {
    for (const auto& prompt : *ids) key += fmt::format("\n{}", fmt::join(prompt, " "));
  }
  return key;
}

void Flux1Model::read_index() {
  const io::Json index = read_model_index(files_);
  with_tensors("transformer", io::flux1_names(),
               [&](const io::NamedTensors& t) { flux_ = infer_flux1_config(shapes_of(t)); });
  info_.pipeline = pipeline_of(index);
  if (!flux_.guidance) info_.defaults.steps = 4;
  set_picture_inputs();
  apply_recommended(info_.defaults, index);
}

// What the transformer reads of pictures, from its channels, and from the pipeline where channels can't tell.
void Flux1Model::set_picture_inputs() {
  const std::string& pipeline = info_.pipeline;
  SamplingDefaults& d = info_.defaults;
  if (pipeline.starts_with("FluxControlNet") || pipeline.starts_with("FluxPrior")) {
    throw Error(
        ErrorCode::unsupported,
        fmt::format("model_index.json: the pipeline is {}, which needs a network that isn't read here",
                    io::shown(pipeline)));
  }
  const int64_t in = flux_.in_channels, out = flux_.out_channels;
  info_.extra = in == 2 * out ? ExtraChannels::control : in > out ? ExtraChannels::fill : ExtraChannels::none;
  info_.references = info_.extra == ExtraChannels::none && pipeline.starts_with("FluxKontext");
  const auto needs = [&](std::string_view prefix, ExtraChannels extra, const char* channels) {
    if (pipeline.starts_with(prefix) && info_.extra != extra) {
      throw Error(
          ErrorCode::format,
          fmt::format("model_index.json: the pipeline is {}, whose transformer reads {}; this one reads {} "
                      "channels of a token and gives {}",
                      io::shown(pipeline), channels, in, out));
    }
  };
  needs("FluxFill", ExtraChannels::fill, "a masked picture and its mask besides the noise");
  needs("FluxControl", ExtraChannels::control, "a control picture besides the noise");
  if (info_.extra == ExtraChannels::none) return;
  d.steps = 50;
  d.guidance = 30;
  if (info_.extra == ExtraChannels::fill) d.strength = 1;
}

void Flux1Model::read_configs() {
  apply_flux1_json(flux_, config_of("transformer"));
  vae_ = read_vae_part(files_.parts.at("vae"), flux_.out_channels / 4, false);
  const auto tell = [&](const char* part, const std::set<std::string_view>& known) {
    tell_unknown_fields(part, config_of(part), known, options_.remark);
  };
  tell(kClip, text_fields());
  tell(kT5, text_fields());
  tell("transformer", kTransformerFields);
  if (!vae_.tiny) tell("vae", autoencoder_fields());
  with_tensors("text_encoder", io::clip_names(),
               [&](const io::NamedTensors& t) { clip_config_ = infer_clip_config(shapes_of(t)); });
  apply_clip_json(clip_config_, config_of("text_encoder"));
  with_tensors("text_encoder_2", io::t5_names(),
               [&](const io::NamedTensors& t) { t5_config_ = infer_t5_config(shapes_of(t)); });
  apply_t5_json(t5_config_, config_of("text_encoder_2"));
  SchedulerConfig scheduler;
  if (!files_.scheduler.empty())
    scheduler = SchedulerConfig::from_json(io::read_json(files_.scheduler));
  else
    scheduler.schedule = flux_.guidance ? Schedule::flux1_dev() : Schedule::flux1_schnell();
  info_.schedule = scheduler.schedule;
  info_.solver = scheduler.solver;
}

void Flux1Model::read_tokenizers() {
  Flux1Tokenizers both = load_flux1_tokenizers(files_, options_.remark);
  clip_tokenizer_ = std::move(both.clip);
  t5_tokenizer_ = std::move(both.t5);
  info_.defaults.txt_tokens = flux1_text_tokens(files_, flux_.guidance, options_.text_tokens);
}

void Flux1Model::check_parts() const {
  const auto same = [](const char* what, int64_t a, const char* other, int64_t b) {
    if (a != b) throw Error(ErrorCode::format, fmt::format("{} is {}, but {} is {}", what, a, other, b));
  };
  same("the transformer's context width", flux_.context_in_dim, "text_encoder_2's width", t5_config_.width);
  same("the transformer's vector width", flux_.vec_in_dim, "text_encoder's width", clip_config_.width);
  same("the transformer's channels", flux_.out_channels, "four times the autoencoder's", 4 * vae_.channels());
  if (info_.extra == ExtraChannels::fill)
    same("the side of a cell in the transformer's mask channels", flux1_fill_factor(flux_),
         "the autoencoder's factor", vae_.cell());
  const auto fits = [](const char* name, const Tokenizer& t, int64_t vocab) {
    if (t.vocab_size() > vocab) {
      throw Error(ErrorCode::format,
                  fmt::format("{} has {} tokens, its encoder {}", name, t.vocab_size(), vocab));
    }
  };
  fits("tokenizer", *clip_tokenizer_, clip_config_.vocab);
  fits("tokenizer_2", *t5_tokenizer_, t5_config_.vocab);
  same("the tokenizer's end token", clip_tokenizer_->eos_id(), "text_encoder's", clip_config_.eos);
}

}  // namespace

std::unique_ptr<Model> open_flux1(Device& device, const ModelFiles& files, const ModelOptions& options) {
  return std::make_unique<Flux1Model>(device, files, options);
}

}  // namespace vkflux
