// Encoded prompts on disk, so that drawing with the same prompt again needs no text encoder. What lies there
// is hostile like any file: an entry that isn't what it should be is made anew.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "model/condition.h"
#include "model/io/tensor_source.h"

namespace vkflux {

/// 32 hexadecimal digits of a file's names, types and shapes, of samples of every tensor's bytes, and of its
/// size and time of change.
std::string fingerprint(const io::TensorSource& file);
/// What of a device and its driver can change the bits of a result.
std::string device_key(Device& device);

class PromptCache {
 public:
  /// folder: empty for "prompts" in cache_folder(). most: bytes of all entries; those used longest ago go
  /// first.
  explicit PromptCache(std::string folder = {}, uint64_t most = uint64_t{512} << 20);
  using Shapes = std::map<std::string, Shape>;
  /// What was kept under the key in these shapes, else what `make` gives, which is kept if it can be: a full
  /// disk isn't an error.
  Condition get(Device& device, const std::string& key, const Shapes& shapes,
                const std::function<Condition()>& make) const;

 private:
  std::string path_of(const std::string& key) const;
  void keep(const std::string& key, const Condition& condition) const;
  void shrink() const;

  std::string folder_;
  uint64_t most_;
};

}  // namespace vkflux
