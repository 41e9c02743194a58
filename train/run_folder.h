// The folder of a run: the names in it, who may write there, and a clean start.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace vkflux {

/// The folder of a run and the names in it.
struct RunFolder {
  std::string path;

  std::string file(const std::string& name) const { return path + "/" + name; }
  std::string checkpoint() const { return file("checkpoint.safetensors"); }
  std::string metrics() const { return file("metrics.jsonl"); }
  /// What every run writes here, the checkpoint first; beside them it fills "events".
  static const std::vector<std::string>& own_files();
  /// The folder's own name, by which people and tools tell runs apart.
  std::string name() const;

  /// Removes the event files of an earlier run: metrics would tell two stories.
  void clear_events() const;
  /// Removes what a run writes: the checkpoint first, parameters, metrics, events, and `results` (paths in
  /// the folder, whose parts may be patterns of fnmatch), but for what keep() wants. Nothing else is touched,
  /// and folders go only when nothing is left in them. Error io.
  void clear(const std::vector<std::string>& results,
             const std::function<bool(const std::string& path)>& keep) const;
};

/// Holds a run's folder for this process, which makes it, while it lives. The system lets it go when the
/// process ends in any way.
class RunLock {
 public:
  /// Error io when another process holds the folder, with its number, or when it can't be made;
  /// invalid_argument for an empty path.
  explicit RunLock(const RunFolder& folder);
  /// Folders that it made and nobody wrote to are gone afterwards.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  void take();
  void remove_folders() noexcept;

  std::string path_;
  std::vector<std::string> made_;  // folders, outermost first
  int fd_ = -1;
};

}  // namespace vkflux
