// LoRA files applied to a model. Weights stay as they are stored; what a file adds is computed beside them
// (side paths of the linear layers), so packed and streamed weights take them too.
//
//   LoraSet loras({{"style.safetensors", 0.8f}}, flux1_components(...));
//   loras.attach("transformer", transformer);   // when its weights are loaded
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/lora/file.h"
#include "model/lora/stack.h"
#include "model/lora/use.h"

namespace vkflux {

class LoraSet {
 public:
  LoraSet();
  /// Opens and matches the files. `remark` gets a report on each. Error format when a file is damaged or
  /// nothing of it changes this model; io when it can't be read.
  LoraSet(const std::vector<LoraUse>& uses, std::vector<lora::Component> components,
          const std::function<void(const std::string&)>& remark = {});
  ~LoraSet();
  LoraSet(LoraSet&&) noexcept;
  LoraSet& operator=(LoraSet&&) noexcept;

  bool empty() const { return files_.empty(); }
  /// Bytes that the files' changes of a part take on the device, about: what attach() will allocate.
  uint64_t device_bytes(const std::string& part, WantedType matrices) const;

  /// Puts the changes beside the weights of a part that has been loaded; earlier ones are replaced. -> bytes
  /// on the device. Norms are changed in place, so they must have been loaded anew. `read` gives the values
  /// of parameters that the device doesn't keep (streamed ones); DoRA and norms need them.
  template <class Model>
  uint64_t attach(const std::string& part, Model& model, const lora::ReadParameter& read = {}) const {
    return empty() ? 0 : attach(part, lora::modules_of(model), read);
  }
  uint64_t attach(const std::string& part, const lora::Modules& modules,
                  const lora::ReadParameter& read = {}) const;
  /// What the changes of a part depend on: weights and a checksum of the values, "" when there are none. For
  /// keys of what is computed with the part and kept.
  std::string fingerprint(const std::string& part) const;

  /// Whether merge() would change the parameter.
  bool changes(const std::string& part, const std::string& parameter) const;
  /// Adds the changes of a parameter of a part to its values (in f32; names and order of rows are ours): what
  /// a merged checkpoint holds. False when nothing changes it.
  bool merge(const std::string& part, const std::string& parameter, std::vector<float>& values) const;

 private:
  struct Opened;
  std::unique_ptr<std::vector<lora::Component>> components_;  // where files_ point
  std::vector<Opened> files_;
};

}  // namespace vkflux
