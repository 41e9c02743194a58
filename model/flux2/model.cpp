// The files of a FLUX.2 model as a Model.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/flux2/files.h"
#include "model/flux2/lora.h"
#include "model/flux2/parts.h"
#include "model/flux2/tokenizer.h"
#include "model/known_fields.h"
#include "model/model_index.h"
#include "model/part_search.h"
#include "model/parts_model.h"
#include "model/prompt_cache.h"
#include "model/sampler/scheduler_config.h"
#include "model/text/prompt_encoder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char *kText = "text_encoder", *kTransformer = "transformer", *kVae = "vae";
constexpr int64_t kTextTokens = 512;

class Flux2Model final : public PartsModel {
 public:
  Flux2Model(Device& device, const ModelFiles& files, const ModelOptions& options)
      : PartsModel(device, files), options_(options) {
    const io::Json index = read_model_index(files_);
    read_configs();
    read_states(index);
    const PromptKind kind = prompt_kind(configs_.text);
    tokenizer_ = std::make_unique<ChatTokenizer>(load_flux2_tokenizer(files_, kind, options_.remark), kind,
                                                 !options_.plain_prompts);
    check_parts();
    set_info(index);
    if (!options_.loras.empty())
      loras_ = LoraSet(options_.loras, {flux2_lora_component(configs_.transformer)}, options_.remark);
    weights_ = std::make_unique<PartWeights>(
        device, flux2_recipes(device, configs_, text_file()), opener(),
        PartWeights::Options{options.weights, options.remark, options.keep_parts, &loras_});
  }

  std::shared_ptr<Backbone> backbone() override {
    auto transformer = weights_->get<Flux2>(kTransformer);
    transformer->set_keep_references(keep_references_);
    return transformer;
  }
  std::shared_ptr<LatentCodec> codec() override { return vae_codec(device_, *weights_, configs_.vae); }
  Condition encode(const std::vector<std::string>& prompts) override {
    const DecoderTokens ids = tokens(prompts);
    const auto fresh = [&]() -> Condition {
      return {{"txt", encode_prompts(*weights_->get<DecoderLm>(kText), ids, configs_.states)}};
    };
    // A plan is for any prompt: it counts the encoder.
    if (!options_.prompt_cache || device_.rehearsing()) return fresh();
    const auto n = static_cast<int64_t>(prompts.size());
    return prompt_cache_.get(device_, encoding_key(ids),
                             {{"txt", {n, info_.defaults.txt_tokens, configs_.transformer.context_in_dim}}},
                             fresh);
  }
  std::string not_finite_in_encode(const std::vector<std::string>& prompts) override {
    const DecoderTokens ids = tokens(prompts);
    const std::string where = first_not_finite([&](Trace* trace) {
      return encode_prompts(*weights_->get<DecoderLm>(kText), ids, configs_.states, trace);
    });
    return where.empty() ? where : fmt::format("{}: {}", kText, where);
  }
  bool use_f32(ModelStage stage) override {
    return weights_->use_f32(stage == ModelStage::text ? kText : kTransformer);
  }
  std::vector<TextCut> cuts(const std::vector<std::string>& prompts) const override {
    std::vector<TextCut> out;
    find_cuts("the text encoder", *tokenizer_, tokenizer_->room(length()), prompts, out);
    return out;
  }

 private:
  int length() const { return static_cast<int>(info_.defaults.txt_tokens); }
  DecoderTokens tokens(const std::vector<std::string>& prompts) const {
    return tokenizer_->tokens(prompts, length());
  }
  Flux2Text text_file() const {
    const ErrorContext context(kText);
    const std::string& path = files_.parts.at(kText).path;
    const auto file = io::open_tensors(path);
    const int64_t layers = configs_.text_layers();
    return {names_without_embedding(*file, layers), open_named(path, io::decoder_names(*file, layers))};
  }
  std::string encoding_key(const DecoderTokens& ids);
  void read_configs();
  void read_states(const io::Json& index);
  void check_parts() const;
  void set_info(const io::Json& index);
  void set_klein(const io::Json& index);

  ModelOptions options_;
  PromptCache prompt_cache_;
  std::string encoder_;  // its fingerprint, made when it is first needed
  LoraSet loras_;
  Flux2Configs configs_;
  std::unique_ptr<const ChatTokenizer> tokenizer_;
  bool keep_references_ = false;
};

// Everything that the encoded prompts depend on.
std::string Flux2Model::encoding_key(const DecoderTokens& ids) {
  if (encoder_.empty()) encoder_ = fingerprint(*io::open_tensors(files_.parts.at(kText).path));
  std::string key =
      fmt::format("{} {} {} {} {}", encoder_, options_.weights ? name(*options_.weights) : "file",
                  decoder_json(configs_.text).dump(), fmt::join(configs_.states, ","), device_key(device_));
  for (size_t i = 0; i < ids.ids.size(); ++i) {
    key += fmt::format("\n{}", fmt::join(ids.ids[i], " "));
    if (!ids.mask.empty()) key += fmt::format("\n{}", fmt::join(ids.mask[i], ""));
  }
  return key;
}

void Flux2Model::read_configs() {
  with_tensors(kTransformer, io::flux2_names(),
               [&](const io::NamedTensors& t) { configs_.transformer = infer_flux2_config(shapes_of(t)); });
  apply_flux2_json(configs_.transformer, config_of(kTransformer));
  {
    const ErrorContext context(kText);
    configs_.text = decoder_config(*io::open_tensors(files_.parts.at(kText).path), config_of(kText));
  }
  configs_.vae = read_vae_part(files_.parts.at(kVae), configs_.transformer.channels, true);
  const auto tell = [&](const char* part, const std::set<std::string_view>& known) {
    tell_unknown_fields(part, config_of(part), known, options_.remark);
  };
  const auto transformer = flux2_fields();
  tell(kText, text_fields());
  tell(kTransformer, {transformer.begin(), transformer.end()});
  if (!configs_.vae.tiny) tell(kVae, autoencoder_fields());
}

void Flux2Model::read_states(const io::Json& index) {
  std::vector<int64_t>& states = configs_.states;
  states = prompt_states(index.value("vkflux", io::Json::object()), "model_index.json",
                         published_states(prompt_kind(configs_.text)));
  if (!options_.text_states.empty()) states = options_.text_states;
  const int64_t wanted = configs_.transformer.context_in_dim, width = configs_.text.width;
  const auto given = static_cast<int64_t>(states.size());
  if (given * width != wanted) {
    throw Error(
        options_.text_states.empty() ? ErrorCode::format : ErrorCode::invalid_argument,
        fmt::format("the transformer reads {} numbers of each text token, but {} hidden states ({}) of "
                    "the text encoder have {} each{}",
                    wanted, given, fmt::join(states, ", "), width,
                    wanted % width == 0
                        ? fmt::format(": name the {} it was trained with by --text-states", wanted / width)
                        : ": it was made for another encoder"));
  }
  try {
    layers_for_states(states, configs_.text);
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}; --text-states names others", e.what()));
  }
}

void Flux2Model::check_parts() const {
  const int64_t cells = configs_.vae.channels();
  if (configs_.transformer.channels != cells)
    throw Error(ErrorCode::format,
                fmt::format("the transformer's tokens have {} channels, the autoencoder's cells {}",
                            configs_.transformer.channels, cells));
  if (tokenizer_->vocab_size() > configs_.text.vocab)
    throw Error(ErrorCode::format, fmt::format("the tokenizer has {} tokens, its encoder {}",
                                               tokenizer_->vocab_size(), configs_.text.vocab));
}

void Flux2Model::set_info(const io::Json& index) {
  info_.layout = flux2_layout(configs_.transformer);
  info_.pixels_per_cell = configs_.vae.cell();
  info_.pipeline = pipeline_of(index);
  SchedulerConfig scheduler;
  if (!files_.scheduler.empty()) scheduler = SchedulerConfig::from_json(io::read_json(files_.scheduler));
  info_.schedule = files_.scheduler.empty() ? Schedule::flux2() : scheduler.schedule;
  // Diffusers' pipelines of FLUX.2 give the scheduler this exponent in place of the one that it has.
  info_.schedule.empirical = true;
  info_.solver = scheduler.solver;
  info_.references = true;
  info_.reference_rule = ReferenceRule::capped_area;
  SamplingDefaults& defaults = info_.defaults;
  defaults.steps = 50;
  defaults.guidance = 4;
  if (!configs_.transformer.guidance) set_klein(index);
  apply_recommended(defaults, index);
  keep_references_ = options_.keep_references.value_or(keep_references_);
  defaults.txt_tokens = text_tokens(index, kTextTokens, options_.text_tokens);
}

// Base models want true guidance and many steps, distilled ones neither; their tensors look the same.
void Flux2Model::set_klein(const io::Json& index) {
  const bool kv = info_.pipeline.starts_with("Flux2KleinKV");
  bool distilled = io::get_or<bool>(index, "is_distilled", kv, "model_index.json");
  keep_references_ = kv;
  if (files_.index.empty()) {
    std::string file = io::last_name(files_.parts.at(kTransformer).path);
    for (char& c : file) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    distilled = file.find("base") == std::string::npos;
    keep_references_ = has_word(file, {"kv"});
    if (options_.remark)
      options_.remark(
          fmt::format("{} is taken for a {} model by its name: {}", file, distilled ? "distilled" : "base",
                      distilled ? "4 steps and no true guidance (--steps 50 --cfg 4 for a base model)"
                                : "50 steps and --cfg 4 (--steps 4 --cfg 1 for a distilled one)"));
    if (options_.remark && keep_references_ && !options_.keep_references)
      options_.remark(
          fmt::format("{} is taken for a KV model by its name: reference pictures are read once for "
                      "all steps (--ref-cache off: in every step)",
                      file));
  }
  info_.defaults.steps = distilled ? 4 : 50;
  info_.defaults.cfg = distilled ? 1 : 4;
}

}  // namespace

std::unique_ptr<Model> open_flux2(Device& device, const ModelFiles& files, const ModelOptions& options) {
  return std::make_unique<Flux2Model>(device, files, options);
}

}  // namespace vkflux
