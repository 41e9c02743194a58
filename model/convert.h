// A part of a model from one file to another: of another type, in another layout of names, in another
// container. Tensor by tensor, so that a file may be larger than memory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/io/names.h"
#include "model/io/tensor_writer.h"
#include "model/load.h"
#include "model/lora/modules.h"
#include "model/module.h"
#include "model/weight_storage.h"

namespace vkflux {

/// What a file's tensors are.
struct ModelPartFile {
  std::string name;           // of its folder in a pipeline: "transformer"
  std::vector<Param> params;  // names and shapes alone
  io::NameTable names;        // between ours and diffusers'
  StorageRules rules;
  RowSplit rows;                           // of what diffusers splits
  std::string architecture;                // as GGUF files call it
  InitRule init;                           // of weights that nobody trained
  std::vector<lora::Component> lora = {};  // the part as LoRA files see it; empty: they don't change it
  io::NameTable gguf_names = {};           // of GGUF files; without rules: ours
  std::vector<std::pair<std::string, io::GgufValue>> gguf_values = {};  // their metadata beside
};

/// The part that a file holds: `wanted` of several ("" where there is one). Error format where its tensors
/// don't fit, invalid_argument where `wanted` isn't there or several are and none is wanted.
ModelPartFile part_of_file(const io::TensorSource& file, const std::string& wanted);

/// Sizes of a part that is made up; 0: the published one's.
struct MadeUpSizes {
  int64_t depth = 0, depth_single = 0;
};
/// The published parts by name: "flux1-dev", "t5xxl", "clip_l", "ae", "flux2-klein-4b", "qwen3_4b", "ae2"
/// (FLUX.2's autoencoder) and so on.
const std::vector<std::string>& made_up_parts();
ModelPartFile made_up_part(const std::string& name, const MadeUpSizes& sizes);

/// Where values come from.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual io::FileDType stored(const Param& p) const = 0;
  /// Values [first, first + out.size()).
  virtual void values(const Param& p, uint64_t first, std::span<float> out) const = 0;
  /// Whether blocks() gives rows in `type` as they are stored.
  virtual bool has_blocks(const Param&, io::FileDType) const { return false; }
  virtual void blocks(const Param&, io::FileDType, int64_t /*row*/, std::span<std::byte>) const {}
};
/// Of a checkpoint, which must outlive it.
std::unique_ptr<WeightSource> weights_of(const io::NamedTensors& file);
/// Random, a function of (seed, name, place); small enough for the network to stay finite.
std::unique_ptr<WeightSource> random_weights(const ModelPartFile& part, uint64_t seed);

struct ConvertOptions {
  WantedType type;                                                   // of matrices; none: as each is stored
  std::string layout;                                                // "bfl" or "diffusers" names
  bool gguf = false;                                                 // the container; else safetensors
  std::function<void(uint64_t done, uint64_t total)> progress = {};  // bytes written
};

struct Converted {
  std::map<std::string, std::pair<int64_t, uint64_t>> types;  // tensors and bytes by type
  uint64_t bytes = 0;
  int64_t tensors = 0;
  std::vector<std::string> remarks;
};

/// Writes `out`. Matrices become options.type by the rules that hold on the device too (storage_of); vectors
/// are F32 where a type is wanted, and in GGUF files. Error invalid_argument for a type that the container
/// doesn't have; cancelled when interrupted, and nothing is left then.
Converted convert(const ModelPartFile& part, const WeightSource& source, const std::string& out,
                  const ConvertOptions& options);

}  // namespace vkflux
