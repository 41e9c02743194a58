// A family of models (FLUX.1, ...) as a row: how its files are recognised, opened and made anew. Everything
// else works on what a row gives: a backbone, a codec, conditions, and what sampling needs to know
// (ModelInfo).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/component.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/latent_codec.h"
#include "model/lora/use.h"
#include "model/module.h"
#include "model/part_places.h"
#include "model/residency.h"
#include "model/sampler/request.h"
#include "model/text/cut.h"
#include "model/text/tokenizer.h"

namespace vkflux {

namespace lora {
struct Component;
}

struct ModelOptions {
  /// Of the matrices of the transformer and the text encoders; packed types with the exceptions of
  /// model/weight_storage.h. None: every matrix as its file has it.
  std::optional<DType> weights = DType::f32;
  std::function<void(const std::string&)> remark;  // gets sentences on what was loaded otherwise than wanted
  /// Keep every part on the device between its uses, or none; absent: what fits (model/residency.h).
  std::optional<bool> keep_parts;
  /// Of the codec: in tiles when the memory needs it, and of which size (0: the largest that fits).
  TilingWish tiling = TilingWish::when_needed;
  Tiling tile;
  /// Encoded prompts are kept on disk (model/prompt_cache.h).
  bool prompt_cache = false;
  /// Applied to the parts whenever they are loaded, all of them added up.
  std::vector<LoraUse> loras;
  /// Single parts in place of the model's own, by the names of diffusers' folders ("transformer",
  /// "tokenizer_2"): folders, files, or names of the Hugging Face cache. What a file's tensors don't tell
  /// comes from a config.json beside it only where both have the names that diffusers gives them.
  std::map<std::string, std::string> files;
  std::string variant;      // "fp16": of files such as model.fp16.safetensors; empty: the plain ones
  int64_t text_tokens = 0;  // of the prompt's longest encoding; 0: the model's default
  /// Numbers of the hidden states that a decoder-only text encoder gives the transformer; empty: the model's.
  std::vector<int64_t> text_states;
  /// Reference pictures are read once for all steps, as klein-kv was trained for; absent: as the model's
  /// files say.
  std::optional<bool> keep_references;
  bool plain_prompts = false;  // special tokens that a prompt names are plain text, where both are possible
};

enum class ModelStage { text, transformer };

/// A checkpoint of some family: its configs, tokenizers and file headers are read, the weights of a part
/// follow when it is first asked for.
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;
  /// The parts, loaded now unless they are here.
  virtual std::shared_ptr<Backbone> backbone() = 0;
  virtual std::shared_ptr<LatentCodec> codec() = 0;
  /// Runs the text encoders: one picture for each prompt.
  virtual Condition encode(const std::vector<std::string>& prompts) = 0;
  /// Encodes again and names the first value on the way that isn't finite; empty: all are, or nobody knows.
  virtual std::string not_finite_in_encode(const std::vector<std::string>&) { return {}; }
  /// From now on this stage's parts come with f32 weights; those that were handed out stay as they are.
  /// False: they do already.
  virtual bool use_f32(ModelStage) { return false; }
  /// What encode() would not read of these prompts; reads no weights. Empty for a model without tokenizers.
  virtual std::vector<TextCut> cuts(const std::vector<std::string>&) const { return {}; }

  /// The parts with their sizes; empty: the model decides for itself what it holds.
  virtual std::vector<ModelPart> parts() const { return {}; }
  /// How parts are held from now on; those that are held otherwise are let go.
  virtual const Residency& residency() const;
  virtual void set_residency(const Residency&) {}
  /// Bytes of the parts that are on the device now.
  virtual uint64_t held_bytes() const { return 0; }
  /// While the result lives the model holds none of its parts; then those of before, and none that came
  /// since.
  virtual std::shared_ptr<void> set_aside() { return nullptr; }
};

/// Sizes of a model that is made to be trained.
struct ModelSizes {
  int64_t latent_channels = 16;
  int64_t hidden = 192, heads = 3, depth = 2, depth_single = 4;
  int64_t text_width = 128, text_layers = 2, text_heads = 4, text_mlp = 256;
  int tokens = 8;          // of a prompt
  std::string tokenizers;  // the folder that holds the family's tokenizer folders
};

/// Everything between a prompt and a prediction, to be trained.
class TrainableModel {
 public:
  struct Part {
    std::string prefix;  // of its parameters' names
    std::vector<Param> params;
    InitRule init;
  };
  virtual ~TrainableModel() = default;
  virtual Backbone& backbone() = 0;
  /// What its pictures are drawn with.
  virtual Schedule schedule() const = 0;
  virtual std::vector<Part> parts() = 0;
  /// Differentiable with respect to the parts.
  virtual Condition encode(const std::vector<std::string>& captions) = 0;
  /// What encode() would not read of these captions.
  virtual std::vector<TextCut> cuts(const std::vector<std::string>&) const { return {}; }
  /// Sizes, as a checkpoint must repeat them.
  virtual std::string fingerprint() const = 0;
  /// Takes the weights of a model folder of the same sizes.
  virtual void load(Device& device, const std::string& folder) = 0;
  /// Writes a folder that the family opens; `codec`: the folder of the autoencoder that made the latents. The
  /// file by which a folder is known for a model is written last.
  virtual void save(const std::string& folder, const std::string& codec,
                    const SamplingDefaults& defaults) = 0;
};

/// A tokenizer of a model's folder, and how many ids the text encoder behind it takes.
struct PromptTokenizer {
  std::string name;  // of its folder, "tokenizer_2"
  std::shared_ptr<const Tokenizer> tokenizer;
  int length = 0;
};

/// A part of a family's models, and what files of it are called.
struct PartKind {
  std::string_view name, flag;  // of its folder in diffusers' layout, and of the command line
  ComponentKind kind;
  std::vector<std::string_view> folders;  // of ComfyUI's models/ that hold such files
  std::vector<std::string_view> usual;    // words of their usual names, lower-case
  std::string_view download;              // a public repository and file that has it
};

struct Family {
  std::string_view name, title;  // "flux1", "FLUX.1"
  /// Whether model_index.json's "_class_name" is one of this family's pipelines.
  bool (*pipeline)(std::string_view class_name);
  /// Error format names what is missing, unsupported what is another model.
  std::unique_ptr<Model> (*open)(Device& device, const ModelFiles& files, const ModelOptions& options);
  std::unique_ptr<TrainableModel> (*create)(const ModelSizes& sizes);
  /// The tokenizers of a model; null: the family has none.
  std::vector<PromptTokenizer> (*tokenizers)(const ModelFiles& files, const ModelOptions& options) = nullptr;
  /// The transformer first; empty: the family's models are folders that it reads by itself.
  std::vector<PartKind> parts = {};
  std::vector<std::string_view> tokenizer_names = {};  // "tokenizer", by the names of diffusers' folders
  /// Whether a part of this config belongs to a transformer of that one; null: any does.
  bool (*fits)(const io::Json& transformer, std::string_view part, const io::Json& config) = nullptr;
  /// Its parts as LoRA files see them, at the sizes of the published models; null: files aren't told apart.
  std::vector<lora::Component> (*lora_components)() = nullptr;
  /// Published models whose parts can be made from their shapes alone, to be rehearsed; in this order.
  std::vector<std::string_view> published = {};
  std::unique_ptr<Model> (*shapes)(Device& device, std::string_view published,
                                   const ModelOptions& options) = nullptr;
};

/// All families that files are tried with.
std::span<const Family> families();
/// Error invalid_argument lists the names.
const Family& family(std::string_view name);

/// The names of all families' published models, "flux1-dev".
std::vector<std::string> published_models();
/// One of them without weights: what needs none can be asked of it, everything else rehearsed
/// (vk/rehearsal.h). Error invalid_argument lists the names.
std::unique_ptr<Model> published_model(Device& device, std::string_view name, const ModelOptions& options);

}  // namespace vkflux
