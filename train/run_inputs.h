// What a run is made from and with. Its checkpoints hold it, so that a run which goes on with other pictures,
// another model or other settings is noticed.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "model/io/decimal.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "train/data/dataset.h"

namespace vkflux {

/// CRC-32 over pieces of any length.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes);
  /// With its length, so that "ab", "c" isn't "a", "bc".
  void add(std::string_view text);
  /// The contents of a file, read in pieces. -> its size
  uint64_t add_file(const std::string& path);
  std::string text() const;

 private:
  uint32_t value_ = 0;
};

/// Named things that must be the same when a run goes on. Where files lie is none of them.
class RunInputs {
 public:
  /// A setting, by the name of its flag. Floats are kept as people write them.
  template <class T>
  void set(const std::string& name, const T& value) {
    if constexpr (std::is_same_v<T, float>) {
      entries_[name] = io::decimal(value);
    } else {
      entries_[name] = value;
    }
  }
  /// How many there are, and their checksum.
  void set_texts(const std::string& name, const std::vector<std::string>& texts);
  /// Files and folders: number, bytes and checksum of what loaders read. Of a folder with a
  /// model_index.json that is this file and the parts that it names, of any other its own configurations,
  /// tensors and vocabularies. Paths that don't exist are left out. Error io or cancelled.
  void set_files(const std::string& name, const std::vector<std::string>& paths);
  /// Whether that file is one of those that set_files() read.
  bool reads(const std::string& path) const;
  /// Pictures and captions of these items.
  void set_items(const Dataset& data, const std::vector<size_t>& items);

  /// From now on check() says what differs instead of refusing it: all of it, or these entries only.
  void accept_changes() { accept_all_ = true; }
  void accept_changes(const std::vector<std::string>& names);

  /// Compares with what a checkpoint holds. Error invalid_argument names every difference with both values.
  /// -> the names of accepted differences, which are logged, and kept in later checkpoints. A checkpoint from
  /// before they held inputs is only warned about.
  std::vector<std::string> check(const io::SafetensorsFile& checkpoint);
  /// Whether check() accepted a difference that no checkpoint tells of yet.
  bool changed() const { return changed_; }
  /// The entries for a checkpoint's metadata.
  void write(std::map<std::string, std::string>& metadata) const;

 private:
  io::Json entries_ = io::Json::object();  // by name: a setting, or a sentence with a checksum
  io::Json accepted_ = io::Json::array();  // {"name", "from", "to"}, oldest first
  std::set<std::string> files_;            // canonical
  std::vector<std::string> acceptable_;
  bool accept_all_ = false, changed_ = false;
};

}  // namespace vkflux
