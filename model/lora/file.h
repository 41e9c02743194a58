// A LoRA file: which of its tensors change which module of a model, and how much.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/io/json.h"
#include "model/io/tensor_source.h"
#include "model/lora/keys.h"
#include "model/lora/modules.h"

namespace vkflux::lora {

/// Everything that a file has for one of its modules.
struct Adapter {
  std::string key;  // the module as the file calls it
  Place place;
  std::map<Role, std::string> tensors;  // names in the file

  bool has(Role r) const { return tensors.count(r) != 0; }
};

struct Unmatched {
  std::string tensor, why;
};

/// What PEFT keeps beside the tensors: of one component, or ("") of all.
struct PeftConfig {
  std::optional<double> alpha;
  std::map<std::string, double> alphas;  // by the end of a module's name
  bool rslora = false;
};

class File {
 public:
  /// The file must outlive this, and so must the components of the table. Error format for what no model
  /// could use: half of a pair, factors that don't fit each other, two adapters for one place, numbers that
  /// aren't finite.
  File(const io::TensorSource& file, const ModuleTable& table);

  const io::TensorSource& source() const { return file_; }
  const std::vector<Adapter>& adapters() const { return adapters_; }
  const std::vector<Unmatched>& unmatched() const { return unmatched_; }
  size_t tensors() const { return file_.tensors().size(); }
  size_t matched() const { return tensors() - unmatched_.size(); }
  /// Of adapters for this part, "" for all.
  size_t adapters_of(const std::string& part) const;
  /// "304 of 304 tensors match, 152 modules"; what didn't match follows in further lines, up to 20.
  std::string report() const;
  /// Error format when nothing matched, or nothing but text encoders although there is more.
  void refuse_strangers() const;

  /// alpha / r of this adapter, or what its metadata says; `rank` may be 0: no factor has one.
  double scale(const Adapter& adapter, int64_t rank) const;
  /// Values, all of them finite; Error format.
  std::vector<float> values(const std::string& tensor) const;
  /// Without ones behind the second dimension.
  std::vector<int64_t> shape(const std::string& tensor) const;

 private:
  void read_config();
  void read_config(const io::Json& json, const std::string& part, const std::string& prefix,
                   const std::string& origin);
  void match(const ModuleTable& table);
  void drop_misfits();
  void refuse_overlaps() const;

  const io::TensorSource& file_;
  std::vector<Adapter> adapters_;
  std::vector<Unmatched> unmatched_;
  std::map<std::string, PeftConfig> configs_;
  bool has_transformer_;  // among the components
  std::string nearest_;   // to the first that wasn't found
};

/// The tensors of a LoRA: a file, or the folder of one as PEFT and diffusers write it.
std::unique_ptr<io::TensorSource> open_lora(const std::string& path);

}  // namespace vkflux::lora
