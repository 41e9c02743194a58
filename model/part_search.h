// Candidates for the parts of a model among the files of some folders, told by their tensors.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/family.h"
#include "model/io/tensor_source.h"

namespace vkflux {

class PartSearch {
 public:
  /// Files below a folder, down to `depth` folders further; folders that aren't there add nothing.
  void add_folder(const std::string& folder, int depth);
  /// Files that are never candidates.
  void leave_out(const std::string& path);
  const std::vector<std::string>& folders() const { return folders_; }

  struct Candidate {
    std::string path;
    io::Json config;
    bool usual = false;  // by its name
  };
  /// Those that `kind` describes and that hold no part of kind `without`, in the order of their paths.
  std::vector<Candidate> candidates(const PartKind& kind, const PartKind* without);
  /// What couldn't be read, and why: sentences for whoever found nothing.
  const std::vector<std::string>& unreadable() const { return unreadable_; }

 private:
  const io::TensorSource* open(const std::string& path);

  std::vector<std::string> folders_, files_, unreadable_;
  std::map<std::string, std::string> canonical_;  // of files_ and of what is left out
  std::map<std::string, std::unique_ptr<io::TensorSource>> opened_;
};

/// Whether a file's name has one of the words between its own words: "ae" in "flux-ae.safetensors".
bool has_word(const std::string& path, const std::vector<std::string_view>& words);

/// The config that a file stands for as a part of this kind; null: it holds none. Error format or unsupported
/// when it looks like one but can't be loaded.
io::Json described(const PartKind& kind, const io::TensorSource& file);

}  // namespace vkflux
