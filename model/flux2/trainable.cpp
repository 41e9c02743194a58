// A FLUX.2 transformer and its text encoder from scratch, and the folder that they are saved in.
#include <fmt/format.h>

#include <map>

#include "model/flux2/files.h"
#include "model/flux2/parts.h"
#include "model/io/file.h"
#include "model/load.h"
#include "model/model_index.h"
#include "model/text/prompt_encoder.h"
#include "model/trained_files.h"

namespace vkflux {
namespace {

/// Hidden states that a small encoder gives: three, evenly apart, the last of them its own.
std::vector<int64_t> states_of(int64_t layers) {
  return {std::max<int64_t>(1, layers / 3), std::max<int64_t>(1, 2 * layers / 3), layers};
}

Flux2Config transformer_config(const ModelSizes& s) {
  Flux2Config c;
  c.channels = s.latent_channels;
  c.context_in_dim = 3 * s.text_width;
  c.hidden = s.hidden;
  c.mlp_hidden = 3 * s.hidden;
  c.heads = s.heads;
  c.head_dim = s.heads > 0 ? s.hidden / s.heads : 0;  // 0 is refused by the config's check
  c.depth = s.depth;
  c.depth_single = s.depth_single;
  c.axes_dim = flux2_rope_axes(c.head_dim);
  c.guidance = false;
  return c;
}

DecoderConfig text_config(const ModelSizes& s, int64_t vocab) {
  DecoderConfig c;
  c.vocab = vocab;
  c.width = s.text_width;
  c.layers = s.text_layers;
  c.heads = s.text_heads;
  c.kv_heads = s.text_heads % 2 == 0 ? s.text_heads / 2 : s.text_heads;
  c.head_dim = s.text_heads > 0 ? s.text_width / s.text_heads : 0;
  c.mlp = s.text_mlp;
  return c;
}

class TrainableFlux2 final : public TrainableModel {
 public:
  explicit TrainableFlux2(const ModelSizes& s)
      : tokenizers_(s.tokenizers),
        tokenizer_(load_byte_bpe(s.tokenizers + "/tokenizer"), PromptKind::qwen3),
        tokens_(s.tokens),
        states_(states_of(s.text_layers)),
        transformer_(transformer_config(s)),
        text_(text_config(s, tokenizer_.vocab_size())) {}

  Backbone& backbone() override { return transformer_; }
  Schedule schedule() const override { return Schedule::flux2(); }
  std::vector<Part> parts() override {
    return {{"transformer.", parameters(transformer_), flux2_init()},
            {"text_encoder.", parameters(text_), decoder_init(text_.config())}};
  }
  Condition encode(const std::vector<std::string>& captions) override {
    DecoderTokens all;
    for (const std::string& text : captions) {
      auto [it, fresh] = known_.try_emplace(text);
      if (fresh) it->second = tokenizer_.tokens({text}, tokens_);
      all.ids.push_back(it->second.ids.front());
      all.mask.push_back(it->second.mask.front());
    }
    return {{"txt", encode_prompts(text_, all, states_)}};
  }
  std::vector<TextCut> cuts(const std::vector<std::string>& captions) const override {
    std::vector<TextCut> out;
    find_cuts("the text encoder", tokenizer_, tokenizer_.room(tokens_), captions, out);
    return out;
  }
  std::string fingerprint() const override {
    const Flux2Config& c = transformer_.config();
    const DecoderConfig& t = text_.config();
    return fmt::format("hidden {} heads {} depth {} {} text {} {} {} tokens {}", c.hidden, c.heads, c.depth,
                       c.depth_single, t.width, t.layers, t.mlp, tokens_);
  }
  void load(Device& device, const std::string& folder) override {
    const auto part = [&](const char* name, auto& module, const auto& names_of) {
      const ErrorContext context(folder + "/" + name);
      const auto file = io::open_tensors(folder + "/" + name);
      vkflux::load(parameters(module), io::NamedTensors(*file, names_of(*file)), device);
    };
    part("transformer", transformer_, [](const io::TensorSource&) { return io::flux2_names(); });
    part("text_encoder", text_, [](const io::TensorSource& file) { return io::decoder_names(file); });
  }
  void save(const std::string& folder, const std::string& codec, const SamplingDefaults& defaults) override;

 private:
  std::string tokenizers_;
  ChatTokenizer tokenizer_;
  int tokens_;
  std::vector<int64_t> states_;
  Flux2 transformer_;
  DecoderLm text_;
  std::map<std::string, DecoderTokens> known_;  // captions repeat
};

io::Json parts_of_pipeline() {
  const auto part = [](const char* library, const char* type) { return io::Json::array({library, type}); };
  return {{"is_distilled", false},
          {"scheduler", part("diffusers", "FlowMatchEulerDiscreteScheduler")},
          {"text_encoder", part("transformers", "Qwen3ForCausalLM")},
          {"tokenizer", part("transformers", "Qwen2TokenizerFast")},
          {"transformer", part("diffusers", "Flux2Transformer2DModel")},
          {"vae", part("diffusers", "AutoencoderKLFlux2")}};
}

void TrainableFlux2::save(const std::string& dir, const std::string& codec,
                          const SamplingDefaults& defaults) {
  constexpr io::FileDType kMatrices = io::FileDType::f16;
  vkflux::save(parameters(transformer_), dir + "/transformer/diffusion_pytorch_model.safetensors",
               io::flux2_names(), kMatrices);
  write_json(dir + "/transformer/config.json", flux2_json(transformer_.config()));
  vkflux::save(parameters(text_), dir + "/text_encoder/model.safetensors", {}, kMatrices);
  write_json(dir + "/text_encoder/config.json", decoder_json(text_.config()));
  copy_folder(codec, dir + "/vae");
  copy_tokenizer(tokenizers_ + "/tokenizer", dir + "/tokenizer", tokens_);
  write_json(dir + "/scheduler/scheduler_config.json", schedule().to_json());
  SamplingDefaults recommended = defaults;
  recommended.txt_tokens = tokens_;
  io::Json index = model_index("Flux2KleinPipeline", parts_of_pipeline(), recommended);
  index["vkflux"]["text_states"] = states_;
  write_json(dir + "/model_index.json", index);
}

}  // namespace

std::unique_ptr<TrainableModel> create_flux2(const ModelSizes& sizes) {
  return std::make_unique<TrainableFlux2>(sizes);
}

}  // namespace vkflux
