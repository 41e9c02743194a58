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

#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/latent_codec.h"
#include "model/module.h"
#include "model/sampler/request.h"
#include "model/text/cut.h"
#include "model/text/tokenizer.h"

namespace vkflux {

struct ModelOptions {
  /// Of the matrices of the transformer and the text encoders; packed types with the exceptions of
  /// model/weight_storage.h.
  DType weights = DType::f32;
  std::function<void(const std::string&)> remark;  // gets sentences on what was loaded otherwise than wanted
  /// Keep every part on the device between its uses, or none; absent: what fits (model/residency.h).
  std::optional<bool> keep_parts;
  /// Single parts in place of those of the folder, by the folders' names ("transformer"): folders, or files,
  /// whose configs follow from names and shapes alone.
  std::map<std::string, std::string> files;
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

struct Family {
  std::string_view name, title;  // "flux1", "FLUX.1"
  /// Whether model_index.json's "_class_name" is one of this family's pipelines.
  bool (*pipeline)(std::string_view class_name);
  /// Error format names what is missing, unsupported what is another model.
  std::unique_ptr<Model> (*open)(Device& device, const std::string& folder, const ModelOptions& options);
  std::unique_ptr<TrainableModel> (*create)(const ModelSizes& sizes);
  /// The tokenizers of a folder; null: the family has none.
  std::vector<PromptTokenizer> (*tokenizers)(const std::string& folder) = nullptr;
};

/// All families that files are tried with.
std::span<const Family> families();
/// Error invalid_argument lists the names.
const Family& family(std::string_view name);
/// The family of a folder in diffusers' layout. Error unsupported says whose pipeline it is.
const Family& family_of(const std::string& folder);

}  // namespace vkflux
