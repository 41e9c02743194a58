// A folder that goes with the test.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace vkflux::test {

class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "vkflux_test_XXXXXX").string();
    if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Names in a folder, and in those below it, that look like a file on its way: what io::atomic_write makes, a
/// dot and six characters behind the name (IoFile.TemporaryFilesAreFound holds this to it).
inline std::vector<std::string> temporary_files(const std::string& folder) {
  static const std::regex pattern(R"(.+\.(safetensors|jsonl?|png|txt|md|html|csv)\.[A-Za-z0-9]{6})");
  std::vector<std::string> out;
  if (!std::filesystem::exists(folder)) return out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (std::regex_match(name, pattern)) out.push_back(name);
  }
  return out;
}

}  // namespace vkflux::test
