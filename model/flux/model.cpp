// A FLUX.1 folder in diffusers' layout as a Model.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "model/flux/files.h"
#include "model/flux/tokenizers.h"
#include "model/load.h"
#include "model/residency.h"
#include "model/text/tokenizer.h"
#include "model/vae/codec.h"
#include "vk/error.h"

namespace vkflux {
namespace {

int64_t positive(const io::Json& json, const char* key, int64_t fallback, const std::string& origin) {
  const auto v = io::get_or<int64_t>(json, key, fallback, origin);
  if (v < 1 || v > 1 << 20) throw Error(ErrorCode::format, fmt::format("{}: \"{}\" is {}", origin, key, v));
  return v;
}

/// The parts of a folder by what they are loaded as; the places of `kParts`.
enum Part : size_t { kText, kText2, kTransformer, kVae };
constexpr std::array<const char*, 4> kParts{"text_encoder", "text_encoder_2", "transformer", "vae"};

class Flux1Model final : public Model {
 public:
  Flux1Model(Device& device, const std::string& dir, const ModelOptions& options)
      : device_(device), dir_(dir), options_(options) {
    check_files();
    read_index();
    read_configs();
    read_tokenizers();
    check_parts();
    info_.layout = flux1_layout(flux_);
    info_.pixels_per_cell = vae_.factor();
    plan_residency();
  }

  const ModelInfo& info() const override { return info_; }
  std::shared_ptr<Backbone> backbone() override { return part(kTransformer, transformer_, flux_); }
  std::shared_ptr<LatentCodec> codec() override {
    if (codec_) return codec_;
    std::shared_ptr<AutoencoderKL> none;
    auto codec = std::make_shared<AutoencoderCodec>(part(kVae, none, vae_));
    if (stays_[kVae]) codec_ = codec;
    return codec;
  }
  Condition encode(const std::vector<std::string>& prompts) override {
    TokenIds clip_ids, t5_ids;
    for (const std::string& prompt : prompts) {
      clip_ids.push_back(clip_tokenizer_->encode(prompt, clip_length()));
      t5_ids.push_back(t5_tokenizer_->encode(prompt, t5_length()));
    }
    const Tensor y = part(kText, clip_, clip_config_)->forward(clip_ids).pooled;
    return {{"txt", part(kText2, t5_, t5_config_)->forward(t5_ids)}, {"y", y}};
  }
  std::vector<TextCut> cuts(const std::vector<std::string>& prompts) const override {
    std::vector<TextCut> out;
    find_cuts("CLIP", *clip_tokenizer_, clip_length(), prompts, out);
    find_cuts("T5", *t5_tokenizer_, t5_length(), prompts, out);
    return out;
  }

 private:
  /// A part's own file or folder, else its folder in the model's.
  std::string place(const char* part) const {
    const auto own = options_.files.find(part);
    return own == options_.files.end() ? dir_ + "/" + part : own->second;
  }
  /// Hands a part's tensors, under our names, to fn.
  template <class F>
  auto with_tensors(const char* part, const io::NameTable& table, F fn) const {
    const ErrorContext context(part);
    const auto file = io::open_tensors(place(part));
    return fn(io::NamedTensors(*file, table));
  }
  /// Empty for a part that is a file alone.
  io::Json config_of(const char* part) const {
    if (options_.files.count(part) && !io::is_folder(place(part))) return io::Json::object();
    return io::read_json(place(part) + "/config.json");
  }
  int clip_length() const { return static_cast<int>(clip_config_.positions); }
  int t5_length() const { return static_cast<int>(info_.defaults.txt_tokens); }

  /// The part that is held, or a new one with its file's weights, which is held when it stays.
  template <class Module, class Config>
  std::shared_ptr<Module> part(Part which, std::shared_ptr<Module>& held, const Config& config) {
    if (held) return held;
    auto module = std::make_shared<Module>(config);
    with_tensors(kParts[which], names(which), [&](const io::NamedTensors& file) {
      const std::vector<Param> params = parameters(*module);
      load(params, file, device_, weights(which), storage(which));
      const std::string misfit = misfits(storage(which), params, weights(which));
      if (options_.remark && !misfit.empty()) options_.remark(file.path() + ": " + misfit);
    });
    if (stays_[which]) held = module;
    return module;
  }
  io::NameTable names(Part which) const {
    switch (which) {
      case kText:
        return io::clip_names();
      case kText2:
        return io::t5_names();
      case kTransformer:
        return io::flux1_names();
      case kVae:
        break;
    }
    return io::vae_names(vae_.levels());
  }
  StorageRules storage(Part which) const {
    if (which == kVae) return {};
    return which == kText ? clip_storage() : which == kText2 ? t5_storage() : flux1_storage();
  }
  DType weights(Part which) const { return which == kVae ? DType::f32 : options_.weights; }
  void plan_residency() {
    std::vector<ModelPart> parts;
    for (const Part p : {kText, kText2, kTransformer, kVae}) {
      const PartUse use = p == kTransformer ? PartUse::per_step
                          : p == kVae       ? PartUse::per_picture
                                            : PartUse::per_prompt;
      with_tensors(kParts[p], names(p), [&](const io::NamedTensors& file) {
        parts.push_back({kParts[p], device_bytes(file, weights(p), storage(p)), use});
      });
    }
    stays_ = parts_that_stay(parts, usable_bytes(device_), options_.keep_parts);
  }
  void check_files() const;
  void read_index();
  void set_picture_inputs();
  void read_configs();
  void read_tokenizers();
  void check_parts() const;

  Device& device_;
  std::string dir_;
  ModelOptions options_;
  std::vector<bool> stays_;  // by Part
  ModelInfo info_;
  Flux1Config flux_;
  AutoencoderConfig vae_;
  ClipTextConfig clip_config_;
  T5Config t5_config_;
  std::unique_ptr<Tokenizer> clip_tokenizer_, t5_tokenizer_;
  std::shared_ptr<Flux1> transformer_;
  std::shared_ptr<LatentCodec> codec_;
  std::shared_ptr<ClipText> clip_;
  std::shared_ptr<T5Encoder> t5_;
};

void Flux1Model::check_files() const {
  for (const auto& [part, file] : options_.files) {
    if (std::find(kParts.begin(), kParts.end(), part) == kParts.end())
      throw Error(ErrorCode::invalid_argument, fmt::format("{}: FLUX.1 has no part \"{}\"", file, part));
  }
}

void Flux1Model::read_index() {
  const std::string origin = "model_index.json";
  const io::Json index = io::read_json(dir_ + "/" + origin);
  with_tensors("transformer", io::flux1_names(),
               [&](const io::NamedTensors& t) { flux_ = infer_flux1_config(shapes_of(t)); });
  info_.pipeline = io::get_or<std::string>(index, "_class_name", "", origin);
  SamplingDefaults& defaults = info_.defaults;
  if (!flux_.guidance) defaults.steps = 4;
  set_picture_inputs();
  const auto it = index.find("vkflux");
  if (it == index.end()) return;
  defaults.steps = positive(*it, "steps", defaults.steps, origin);
  defaults.cfg = io::get_or<float>(*it, "cfg", defaults.cfg, origin);
  defaults.guidance = io::get_or<float>(*it, "guidance", defaults.guidance, origin);
  if (!std::isfinite(defaults.cfg) || !std::isfinite(defaults.guidance)) {
    throw Error(ErrorCode::format, origin + ": cfg and guidance must be finite");
  }
  if (it->contains("size") && (*it)["size"].is_array()) {
    const auto size = io::get<std::vector<int64_t>>(*it, "size", origin);
    if (size.size() != 2 || size[0] < 1 || size[1] < 1 || std::max(size[0], size[1]) > 1 << 16) {
      throw Error(ErrorCode::format, origin + ": \"size\" must be a number or [width, height]");
    }
    defaults.width = size[0];
    defaults.height = size[1];
  } else {
    defaults.width = defaults.height = positive(*it, "size", defaults.width, origin);
  }
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
  with_tensors("vae", io::vae_names(autoencoder_levels(*io::open_tensors(place("vae")))),
               [&](const io::NamedTensors& t) { vae_ = infer_autoencoder_config(shapes_of(t)); });
  apply_autoencoder_json(vae_, config_of("vae"));
  with_tensors("text_encoder", io::clip_names(),
               [&](const io::NamedTensors& t) { clip_config_ = infer_clip_config(shapes_of(t)); });
  apply_clip_json(clip_config_, config_of("text_encoder"));
  with_tensors("text_encoder_2", io::t5_names(),
               [&](const io::NamedTensors& t) { t5_config_ = infer_t5_config(shapes_of(t)); });
  apply_t5_json(t5_config_, config_of("text_encoder_2"));
  info_.schedule = Schedule::from_json(io::read_json(dir_ + "/scheduler/scheduler_config.json"));
}

void Flux1Model::read_tokenizers() {
  Flux1Tokenizers both = load_flux1_tokenizers(dir_);
  clip_tokenizer_ = std::move(both.clip);
  t5_tokenizer_ = std::move(both.t5);
  info_.defaults.txt_tokens = flux1_text_tokens(dir_, flux_.guidance);
}

void Flux1Model::check_parts() const {
  const auto same = [](const char* what, int64_t a, const char* other, int64_t b) {
    if (a != b) throw Error(ErrorCode::format, fmt::format("{} is {}, but {} is {}", what, a, other, b));
  };
  same("the transformer's context width", flux_.context_in_dim, "text_encoder_2's width", t5_config_.width);
  same("the transformer's vector width", flux_.vec_in_dim, "text_encoder's width", clip_config_.width);
  same("the transformer's channels", flux_.out_channels, "four times the autoencoder's",
       4 * vae_.latent_channels);
  if (info_.extra == ExtraChannels::fill)
    same("the side of a cell in the transformer's mask channels", flux1_fill_factor(flux_),
         "the autoencoder's factor", vae_.factor());
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

std::unique_ptr<Model> open_flux1(Device& device, const std::string& folder, const ModelOptions& options) {
  return std::make_unique<Flux1Model>(device, folder, options);
}

}  // namespace vkflux
