// What a command reads and writes, known before any of its work: nothing that is read may be written over, no
// two results may meet in one file, and everything must be possible to write.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/io/file.h"

namespace vkflux {

class FileUse {
 public:
  /// A file, or a folder with all that is in it. "" is no path: it is left out, here and below.
  void reads(const std::string& flag, const std::string& path);
  void reads(const std::string& flag, const std::vector<std::string>& paths);
  /// A model's folder: model_index.json and the folders that it names. Other files may lie beside them.
  void reads_model(const std::string& flag, const std::string& folder);
  /// A file that is made or replaced; its folder is made where there is none.
  void writes(const std::string& flag, const std::string& path);
  /// A folder in which any file may be made or replaced.
  void fills(const std::string& flag, const std::string& folder);
  /// The folder of a run that may have begun earlier: these files and folders in it are the run's own.
  void runs_in(const std::string& flag, const std::string& folder, const std::vector<std::string>& files,
               const std::vector<std::string>& folders);

  /// Error invalid_argument, naming both, where an output is an input (by any name: links, hard links, ./),
  /// lies in a folder that is read and replaces a file of it, or is another output; error io where it can't
  /// be written. Devices and pipes are written into, so they meet with nothing.
  void check() const;

 private:
  struct Input {
    std::string flag, path;
  };
  struct Output {
    std::string flag, path;
    bool folder = false, own = false;
  };

  std::vector<Input> inputs_;
  std::vector<Output> outputs_;
  std::vector<Input> run_folders_;
};

}  // namespace vkflux
